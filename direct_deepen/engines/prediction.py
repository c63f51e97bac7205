"""The prediction half of the engine: DIRECT's loop, with posterior files beside what DIRECT writes."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from direct.data.datasets import FastMRIDataset
from direct.nn.mri_models import MRIModelEngine
from direct.utils import communication
from omegaconf import OmegaConf
from torch.utils.data import Dataset
from tqdm import tqdm

from direct_deepen.data.batch import names_of_batch, problem_from_batch, selected
from direct_deepen.data.coil_maps import coil_maps_of_batch
from direct_deepen.data.convention import in_standard_convention
from direct_deepen.data.direct_options import require_data
from direct_deepen.data.empty import with_empty
from direct_deepen.data.fastmri_file import require_masks_of_files
from direct_deepen.data.inspection import Layout
from direct_deepen.data.prewhitening import with_prewhitening
from direct_deepen.data.volumes import looked_at
from direct_deepen.engines.calibration_file import Calibration, fitted_calibration
from direct_deepen.engines.checkpoints import digest_of, require_trained_with, require_weights_of, training_energy_of
from direct_deepen.engines.commands import (
    all_cores,
    bad_input_told,
    batch_in_bar,
    command_arguments,
    command_bar,
    reported_seed,
)
from direct_deepen.engines.output_folder import (
    locked,
    require_all_read,
    require_own_files,
    require_volumes,
    tell_passed_over,
    write_reconstruction,
)
from direct_deepen.engines.reconstruction import Reconstruction, misfit_arrays, reconstruct
from direct_deepen.engines.settings import INSTEAD, EngineSettings
from direct_deepen.errors import DeepenError, require_count
from direct_deepen.inference import Inference, Map, Sampler
from direct_deepen.physics.fourier import FourierConvention
from direct_deepen.physics.problem import Problem
from direct_deepen.posterior.posterior_file import (
    IN_DATA_UNITS,
    MEANING,
    FileAttributes,
    PosteriorWriter,
    final_estimate,
    misfit_text,
    open_output,
    posterior_path,
)
from direct_deepen.version import VERSION

_logger = logging.getLogger(__name__)


class Prediction(MRIModelEngine):
    """DIRECT's engine with a prior and an inference, for ``direct predict``."""

    model: torch.nn.Module
    settings: EngineSettings
    inference: Inference
    convention: FourierConvention
    seed: int
    calibration: Calibration | None = None
    training_energy: tuple[float, float] | None = None
    """Mean and standard deviation of E per pixel of the object, of the images that training saw."""
    _output: Path | None = None
    _volumes: Sequence[Path] = ()
    _layouts: Mapping[Path, Layout] = {}
    _store: "PosteriorStore | None" = None
    _bar: tqdm | None = None

    @property
    def prior(self) -> torch.nn.Module:
        """The model itself, out of any wrapper for parallel training."""
        prior = getattr(self.model, "module", self.model)
        assert isinstance(prior, torch.nn.Module)
        return prior

    @torch.no_grad()
    def _problem(self, data: dict[str, Any]) -> Problem:
        data = in_standard_convention(data, self.convention)
        cache = None if self.checkpointer is None else Path(self.checkpointer.save_directory) / "coil_maps"
        maps = coil_maps_of_batch(data, self.settings.coil_maps, cache)
        return problem_from_batch(data, maps, scale_kind=self.settings.intensity_scale)

    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Return the reconstruction of a batch, and what its posterior files hold."""
        correction = None if self.calibration is None else self.calibration.corrected
        return reconstruct(problem, self.prior, self.inference, seed=self.seed, correction=correction)

    def _reconstruct(self, data: dict[str, Any]) -> torch.Tensor:
        if self._store is None or self._bar is None:
            return self.reconstruction(self._problem(data)).image
        names = names_of_batch(data)
        # DIRECT's factor takes the units of the batch to those of the file.
        factor = data["scaling_factor"]
        with batch_in_bar(self._bar, self._volumes, names):
            image = self._store.estimate(names)
            if image is None:
                arrays = self._arrays(data, names)
                image = np.zeros((len(names), *data["masked_kspace"].shape[-3:-1]), np.complex64)
                for i, found in enumerate(arrays):
                    image[i] = found[final_estimate(found)] if found else 0
                self._store.add(names, arrays)
        # Back from the units of the file in either case: a run that was cut short ends with the very same digits.
        return torch.from_numpy(image).to(factor.device) / factor[:, None, None].float()

    def _arrays(self, data: dict[str, Any], names: Sequence[tuple[str, int]]) -> list[dict[str, np.ndarray]]:
        """Return what the file has of every slice of a batch; nothing of an empty one."""
        full = [i for i, empty in enumerate(data["is_empty"].tolist()) if not empty]
        result: list[dict[str, np.ndarray]] = [{} for _ in names]
        if full:
            problem = self._problem(selected(data, full))
            reconstruction = self.reconstruction(problem)
            arrays = reconstruction.arrays | misfit_arrays(problem, self.prior, self.inference, reconstruction.image)
            for place, i in enumerate(full):
                result[i] = in_file_units(arrays, place, data["scaling_factor"][i])
        return result

    def predict(
        self,
        dataset: Dataset,
        experiment_directory: Path,
        checkpoint: int | str | Path | None = -1,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Predict as DIRECT does, with all cores, and write posterior files to the experiment directory.

        Posteriors are rescaled as the calibration beside the checkpoint says, if there is one.
        """
        slices, section = slices_of(dataset), self.cfg.inference.dataset
        self._output, self._volumes = Path(experiment_directory), list(slices)
        # Of several processes the first shows its share, the size of which is not known.
        total = sum(slices.values()) if communication.get_world_size() == 1 else None
        given = isinstance(checkpoint, str | Path) and checkpoint != "latest"
        try:
            with bad_input_told(), all_cores(self.device), command_bar("predict", "slice", total) as self._bar:
                require_data(dataset, "inference.dataset")
                require_own_files(self._folders(), slices)
                passed_over = require_all_read(dataset, self.cfg.inference.dataset, "inference.dataset", ())
                require_volumes(slices)
                undersampled = isinstance(dataset, FastMRIDataset) and section.transforms.masking is None
                if undersampled:
                    require_masks_of_files(section)
                dataset = looked_at(dataset, undersampled=undersampled)
                self._layouts = getattr(dataset, "layouts", {})
                require_count("inference.batch_size", self.cfg.inference.batch_size)
                if given:
                    require_weights_of(self.prior, str(checkpoint))
                    require_trained_with(str(checkpoint), self.settings.meaning(), INSTEAD)
                    self.training_energy = training_energy_of(str(checkpoint))
                    if isinstance(self.inference, Sampler):
                        self.calibration = fitted_calibration(Path(str(checkpoint)), self.inference)
                marked = with_empty(with_prewhitening(dataset, self.settings.prewhitening), "inference.dataset")
                with locked(self._folders()):
                    output = super().predict(marked, experiment_directory, checkpoint, *args, **kwargs)
                tell_passed_over(passed_over, [dataset])
                # What the command of DIRECT would write is written.
                return ([], *output[1:]) if command_arguments() is not None else output
        finally:
            if self._store is not None:
                self._store.close()
            self._output = self._store = self._bar = self.calibration = self.training_energy = None

    def _folders(self) -> list[Path]:
        """Return the folders that are written to: of posterior files, and of those that DIRECT's command writes."""
        assert self._output is not None
        return list(
            dict.fromkeys((self._output, Path((command_arguments() or {}).get("output_directory", self._output))))
        )

    def reconstruct_volumes(self, data_loader: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Reconstruct as DIRECT does; in prediction, what an earlier run has finished is read from its files."""
        volumes = super().reconstruct_volumes(data_loader, *args, **kwargs)
        if self._output is None:
            yield from volumes
            return
        # Only now the weights are loaded. Of several processes each has its share of the volumes.
        slices, shared = slices_of(data_loader.batch_sampler.sampler), self._file_attributes()
        attributes = {volume: shared | of_volume(volume, self._layouts.get(volume)) for volume in slices}
        self._store = PosteriorStore(self._output, slices, attributes)
        command = command_arguments()
        for volume, *others in volumes:
            *_, mask, _, name = others
            if command is not None:
                path = Path(command["output_directory"]) / Path(name).name
                write_reconstruction(path, volume, mask)
                _logger.info("Wrote reconstruction: %s.", path)
            yield volume, *others
            if command is not None:
                # DIRECT would keep all volumes to the end.
                for tensor in (volume, mask):
                    if tensor is not None:
                        tensor.data = tensor.new_empty(0)

    def _file_attributes(self) -> FileAttributes:
        attributes: dict[str, Any] = {
            **MEANING,
            "direct_deepen_version": VERSION,
            "direct_version": version("direct-recon"),
            "torch_version": str(torch.__version__),
            "seed": reported_seed(self.seed),
            "configuration": OmegaConf.to_yaml(self.cfg.model),
            "data_configuration": OmegaConf.to_yaml(self.cfg.inference.dataset),
            "weights_sha256": digest_of(torch.nn.ModuleDict({"model": self.prior, **self.models}).state_dict()),
            "device": str(self.device).partition(":")[0],
        }
        if self.training_energy is not None:
            attributes["training_energy"] = list(self.training_energy)
        inference = self.inference
        if isinstance(inference, Map) and inference.noise_level == "given" and not inference.noise_by_ring:
            attributes["noise_std"] = inference.posterior_noise_std
        if isinstance(inference, Sampler):
            names = ("num_samples", "num_steps", "keep", "averaged_noise", "momentum")
            attributes |= {name: getattr(inference, name) for name in names if hasattr(inference, name)}
            fitted = self.calibration
            attributes |= {"calibrated": fitted is not None, "std_scale": 1.0 if fitted is None else fitted.std_scale}
            if fitted is not None and fitted.ring_scales:
                attributes["ring_scales"] = list(fitted.ring_scales)
            if inference.quantiles:
                attributes["quantile_probabilities"] = list(inference.quantiles)
        return attributes


def slices_of(volumes: Any) -> dict[Path, int]:
    """Return the number of slices of every volume of a dataset, or of a sampler, of DIRECT."""
    return {Path(name): len(indices) for name, indices in volumes.volume_indices.items()}


def in_file_units(arrays: Mapping[str, torch.Tensor], index: int, factor: torch.Tensor) -> dict[str, np.ndarray]:
    """Return what there is of one image of a batch, with intensities times a factor."""
    return {
        name: (value[index] * factor if name in IN_DATA_UNITS else value[index]).cpu().numpy()
        for name, value in arrays.items()
    }


class PosteriorStore:
    """Files of the volumes of a run, where a volume that an earlier run has finished is not computed again.

    Finished is a volume whose file can be read and has just the attributes that it is to get now: the same weights,
    configuration, seed, data, device, calibration and versions. ``slices`` says how many a volume has.
    """

    def __init__(self, directory: Path, slices: Mapping[Path, int], attributes: Mapping[Path, FileAttributes]) -> None:
        self._writer = PosteriorWriter(directory, slices, attributes)
        self._finished = {
            volume: path
            for volume in slices
            if (path := posterior_path(directory, volume)).is_file() and _is_finished(path, attributes[volume])
        }
        if self._finished:
            _logger.info("%i of %i volumes were there already.", len(self._finished), len(slices))

    def close(self) -> None:
        """Remove what there is of volumes that are not complete."""
        self._writer.close()

    def estimate(self, names: Sequence[tuple[str, int]]) -> np.ndarray | None:
        """Return the reconstruction of slices of one volume, complex (slice, row, column), if it is finished."""
        path = self._finished.get(Path(names[0][0]))
        if path is None:
            return None
        with open_output(path) as file:
            positions = {int(number): position for position, number in enumerate(file["slice_number"])}
            images = file[final_estimate(file)]
            return np.stack([images[positions[number]] for _, number in names])

    def add(self, names: Sequence[tuple[str, int]], slices: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Add slices, of which an empty one has nothing, and write the volumes that they complete."""
        for (name, number), arrays in zip(names, slices, strict=True):
            path = self._writer.add(Path(name), number, arrays)
            if path is not None:
                _logger.info("Wrote posterior: %s.", path)
                doubts = misfit_text(path)
                if doubts:
                    _logger.warning("%s", doubts)


def _is_finished(path: Path, attributes: FileAttributes) -> bool:
    """Return whether a file has these attributes and can be read, and tell in the log why not."""
    try:
        with open_output(path) as file:
            other = [name for name, value in attributes.items() if not np.array_equal(file.attrs.get(name), value)]
            if not other:
                file[final_estimate(file)][()]
                return True
            _logger.info("%s has another %s: its volume is computed anew.", path, ", ".join(other))
    except DeepenError as error:
        _logger.warning("%s; its volume is computed anew.", error)
    return False


def of_volume(path: Path, layout: Layout | None) -> FileAttributes:
    """Return what a posterior file says of its volume's file: which it is, and the size of voxels if that is known."""
    geometry = None if layout is None else layout.geometry
    known = () if geometry is None else zip(("reconstruction_size", "voxel_size"), map(list, geometry), strict=True)
    return {"data": file_version(path), **dict(known)}


def file_version(path: Path) -> str:
    """Return what identifies the content of a file: path, as masks follow from it, size and time of the change."""
    if not path.is_file():
        # DIRECT has drawn it, from what the configuration says.
        return str(path)
    status = path.stat()
    return f"{path}, {status.st_size} bytes, changed {status.st_mtime_ns} ns after 1970"
