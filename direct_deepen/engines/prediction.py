"""The prediction half of the engine: DIRECT's loop, with posterior files beside what DIRECT writes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from direct.data.datasets import FastMRIDataset
from direct.utils import communication
from omegaconf import OmegaConf
from torch.utils.data import Dataset
from tqdm import tqdm

import direct_deepen
from direct_deepen.data.batch import NamedSlices, names_of_batch
from direct_deepen.data.fastmri_file import require_fully_sampled, require_masks_of_files
from direct_deepen.engines.bars import batch_in_bar, command_bar
from direct_deepen.engines.base import EngineBase, all_cores
from direct_deepen.engines.calibration_file import fitted_scale
from direct_deepen.engines.checkpoints import digest_of, require_weights_of
from direct_deepen.engines.posterior_store import PosteriorStore, file_version, require_volumes
from direct_deepen.engines.reconstruction import attributes_of
from direct_deepen.engines.reporting import exit_on_bad_input
from direct_deepen.engines.seeds import reported_seed
from direct_deepen.errors import require_count
from direct_deepen.files import require_free_space
from direct_deepen.inference import Sampler
from direct_deepen.posterior.posterior_file import IN_DATA_UNITS, MEANING, FileAttributes

_HEADER_BYTES = 10_000
"""More than what an HDF5 file of a few arrays has besides them."""

_HEADER_BYTES = 10_000
"""More than what an HDF5 file of a few arrays has besides them."""


class Prediction(EngineBase):
    """``direct predict``."""

    _posterior_directory: Path | None = None
    _volumes: Sequence[Path] = ()
    _store: PosteriorStore | None = None
    _bar: tqdm | None = None

    def _reconstruct(self, data: dict[str, Any]) -> torch.Tensor:
        if self._store is None or self._bar is None:
            return self.reconstruction(self._problem(data)).image
        names = names_of_batch(data)
        # DIRECT's factor takes the units of the batch to those of the file.
        factor = data["scaling_factor"]
        with batch_in_bar(self._bar, self._volumes, names):
            image = self._store.estimate(names)
            if image is None:
                arrays = self.reconstruction(self._problem(data)).arrays
                image = self._store.add(names, [in_file_units(arrays, i, factor[i]) for i in range(len(names))])
        # Back from the units of the file in either case: a run that was cut short ends with the very same digits.
        return torch.from_numpy(image).to(factor.device) / factor[:, None, None].float()

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
        slices = {Path(name): len(indices) for name, indices in dataset.volume_indices.items()}  # type: ignore[attr-defined]
        self._posterior_directory, self._volumes = Path(experiment_directory), list(slices)
        # Of several processes the first shows its share, the size of which is not known.
        total = sum(slices.values()) if communication.get_world_size() == 1 else None
        given = isinstance(checkpoint, str | Path) and checkpoint != "latest"
        try:
            with exit_on_bad_input(), all_cores(self.device), command_bar("predict", "slice", total) as self._bar:
                require_volumes(slices)
                if isinstance(dataset, FastMRIDataset):
                    self._require_masks(slices)
                require_count("inference.batch_size", self.cfg.inference.batch_size)
                if given:
                    require_weights_of(self.prior, str(checkpoint))
                    if isinstance(self.inference, Sampler):
                        self.std_scale = fitted_scale(Path(str(checkpoint)), self.inference)
                output = super().predict(NamedSlices(dataset), experiment_directory, checkpoint, *args, **kwargs)
                # DIRECT writes when this has returned; what is in our files is read from there next time.
                require_free_space(Path(experiment_directory), growth_of_files(output, Path(experiment_directory)))
                return output
        finally:
            self._posterior_directory = self._store = self._bar = self.std_scale = None

    def _require_masks(self, paths: Iterable[Path]) -> None:
        section = self.cfg.inference.dataset
        if section.transforms.masking is None:
            require_masks_of_files(section, paths)
            return
        for path in paths:
            require_fully_sampled(path)

    def reconstruct_volumes(self, data_loader: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Reconstruct as DIRECT does; in prediction, what an earlier run has finished is read from its files."""
        if self._posterior_directory is not None:
            # Only now the weights are loaded.
            volumes = data_loader.batch_sampler.sampler.volume_indices
            shared = self._file_attributes()
            attributes = {Path(name): shared | {"data": file_version(Path(name))} for name in volumes}
            slices = {Path(name): len(indices) for name, indices in volumes.items()}
            self._store = PosteriorStore(self._posterior_directory, slices, attributes)
        yield from super().reconstruct_volumes(data_loader, *args, **kwargs)

    def _file_attributes(self) -> FileAttributes:
        attributes = {
            **MEANING,
            "direct_deepen_version": direct_deepen.__version__,
            "direct_version": version("direct-recon"),
            "torch_version": str(torch.__version__),
            "seed": reported_seed(self.seed),
            "configuration": OmegaConf.to_yaml(self.cfg.model),
            "data_configuration": OmegaConf.to_yaml(self.cfg.inference.dataset),
            "weights_sha256": digest_of(torch.nn.ModuleDict({"model": self.prior, **self.models}).state_dict()),
            "device": str(self.device).partition(":")[0],
            **attributes_of(self.inference),
        }
        if isinstance(self.inference, Sampler):
            attributes |= {"calibrated": self.std_scale is not None, "std_scale": self.std_scale or 1.0}
        return attributes


def growth_of_files(output: Any, directory: Path) -> int:
    """Return by how many bytes, at most, the files that DIRECT writes of a prediction exceed those that are there."""
    growth = 0
    for volume, mask, name in output[0]:
        path = directory / Path(name).name
        size = _HEADER_BYTES + 4 * sum(array.numel() for array in (volume, mask) if array is not None)
        growth += max(0, size - (path.stat().st_size if path.exists() else 0))
    return growth


def missing_space(output: Any, directory: Path) -> int:
    """Return by how many bytes, at most, the files that DIRECT writes of a prediction exceed those that are there."""
    volumes, _ = output
    size = 0
    for image, mask, name in volumes:
        path = directory / Path(name).name
        content = 4 * (image.numel() + (0 if mask is None else mask.numel()))
        size += max(0, _HEADER_BYTES + content - (path.stat().st_size if path.exists() else 0))
    return size


def in_file_units(arrays: Mapping[str, torch.Tensor], index: int, factor: torch.Tensor) -> dict[str, np.ndarray]:
    """Return what there is of one image of a batch, with intensities times a factor."""
    return {
        name: (value[index] * factor if name in IN_DATA_UNITS else value[index]).cpu().numpy()
        for name, value in arrays.items()
    }
