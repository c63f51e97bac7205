"""One cell of a benchmark: one method on one problem, tuned on validation data and scored on test data."""

import logging
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from direct.environment import setup_inference_environment
from direct.utils import dict_to_device, set_all_seeds
from omegaconf import OmegaConf
from torch.utils.data import default_collate

from direct_deepen.data.cases import Case, cases, coil_maps_of, inference_dataset
from direct_deepen.engines.base import all_cores
from direct_deepen.engines.checkpoints import require_weights_of, weights_of
from direct_deepen.engines.engine import DeepenEngine as PriorEngine
from direct_deepen.errors import require
from direct_deepen.evaluation.cell_posterior import PosteriorRow, posterior_row
from direct_deepen.evaluation.csv_files import write_csv
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.scoring import REGULARIZATIONS, best_value, classical
from direct_deepen.evaluation.study import ZERO_FILLED, Method, Study, Tuning
from direct_deepen.files import write_hdf5
from direct_deepen.progress import Track, progress_bar

IMAGES = "images.h5"
DEVIATIONS = "std.h5"
ROWS = "rows.csv"
POSTERIOR_ROWS = "posterior.csv"
REFERENCES = "references.h5"


@dataclass(frozen=True)
class CellRow:
    """One method on one slice of one problem.

    Attributes
    ----------
    method, mask, case
        Names of the method, the problem and the slice.
    psnr, ssim, nmse
        Quality.
    seconds
        Time of the reconstruction, transforms excluded.
    gradient_evaluations
        Evaluations of ∇E, or of the network where there is no energy.
    peak_memory_mb
        Growth of the peak of memory since the model was loaded, over the whole cell, the data of a slice included:
        resident memory on the CPU, the allocator's on a GPU.
    parameters
        Number of weights.
    seed
        Seed of the study.
    tuned
        The value that was chosen on validation data; not a number where nothing was.
    """

    method: str
    mask: str
    case: str
    psnr: float
    ssim: float
    nmse: float
    seconds: float
    gradient_evaluations: float
    peak_memory_mb: float
    parameters: int
    seed: int
    tuned: float


@dataclass(frozen=True)
class _Result:
    image: torch.Tensor
    evaluations: float = 0.0
    arrays: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """What an engine of this package has for a posterior file."""

    @property
    def spreads(self) -> bool:
        """Whether there are samples that differ."""
        return "std" in self.arrays and bool(self.arrays["std"].any())


Reconstruct = Callable[[], _Result]
Prepare = Callable[[Case], Reconstruct]
"""What is done before the time is taken: DIRECT's own models read their batch there."""


def run_cell(
    study: Study, problem: str, method: Method, folder: Path, *, device: str = "cpu", track: Track = progress_bar
) -> None:
    """Reconstruct all test slices, and write images, and last of all the rows, to a folder.

    The references, which all cells of a problem share, go to the folder above it. It is meant for a process of its
    own, so that the peak of memory is that of the method; ``track`` may tell another how far this one is.

    Raises
    ------
    DeepenError
        If a file is missing or does not fit.
    """
    data = _Data(study.problems[problem], folder.parent / "coil_maps", device, track)
    with all_cores(device):
        engine = None if method.configuration is None else _engine(method, problem, study.seed, device)
        # An average of weights is no further weight.
        weights = [] if engine is None else [tensor for tensor in engine.model.parameters() if tensor.requires_grad]
        before = _peak_memory_mb(device)
        prepare, tuned = _prepared(study, data, method, engine)
        rows, images, references = [], {}, {}
        posteriors, deviations = [], {}
        for case in data.cases(study.test, "test"):
            reconstruct = prepare(case)
            _wait(device)
            begin = time.perf_counter()
            result = reconstruct()
            _wait(device)
            seconds = time.perf_counter() - begin
            score = quality(result.image[0], case.reference[0])
            label = f"{case.volume}#{case.slice_number}"
            images[label] = result.image[0].abs().float().cpu()
            references[label] = case.reference[0].abs().float().cpu()
            rows.append(
                CellRow(
                    method.name, problem, label, score.psnr, score.ssim, score.nmse, seconds,
                    result.evaluations, 0.0, sum(tensor.numel() for tensor in weights), study.seed, tuned,
                )
            )  # fmt: skip
            if isinstance(engine, PriorEngine) and result.spreads:
                posteriors.append(_posterior_row(method.name, problem, label, result, engine.settings.inference, case))
                deviations[label] = (result.arrays["std"][0] / case.problem.scale).float().cpu()
    peak = _peak_memory_mb(device) - before
    _write_images(folder / IMAGES, images)
    _write_images(folder.parent / REFERENCES, references)
    if posteriors:
        _write_images(folder / DEVIATIONS, deviations)
        write_csv(folder / POSTERIOR_ROWS, [asdict(row) for row in posteriors])
    write_csv(folder / ROWS, [asdict(replace(row, peak_memory_mb=peak)) for row in rows])


@dataclass(frozen=True)
class _Data:
    """Where the slices of a problem come from: its configuration, a cache of coil maps, a device."""

    configuration: Path
    cache: Path
    device: str
    track: Track

    def cases(self, root: Path, name: str) -> Iterable[Case]:
        dataset = inference_dataset(self.configuration, root)
        found = cases(dataset, coil_maps=coil_maps_of(self.configuration), cache=self.cache, device=self.device)
        return self.track(found, name=name, unit="slice", total=len(dataset))

    def validation(self, study: Study) -> list[Case]:
        return list(self.cases(study.validation, "read validation data"))


def _write_images(path: Path, images: Mapping[str, torch.Tensor]) -> None:
    """Write magnitudes by label, so that a reader never finds half a file."""
    write_hdf5(path, ((label, image.numpy()) for label, image in images.items()), {})


def _wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _peak_memory_mb(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _prepared(study: Study, data: _Data, method: Method, engine: Any) -> tuple[Prepare, float]:
    """Return a method's reconstruction, and the value it was tuned to."""
    if method.classical == ZERO_FILLED:
        return lambda case: lambda: _Result(case.problem.A.adjoint(case.problem.masked_kspace)), float("nan")
    if method.classical is not None:
        by_value = partial(classical, method.classical)
        tuned = best_value(REGULARIZATIONS, data.validation(study), by_value, method.name, data.track)
        return lambda case: lambda: _Result(by_value(tuned, case)), tuned
    if isinstance(engine, PriorEngine):
        tuned = float("nan")
        if method.tune is not None:
            tuned = _tune(engine, method.name, method.tune, data.validation(study), data.track)
        return lambda case: partial(_by_prior, engine, case), tuned
    require(
        method.tune is None,
        f"methods.{method.name}.tune: {type(engine).__name__} has no settings to tune; allowed: no tune",
    )
    return _by_direct(engine, method, data, study.test), float("nan")


def _engine(method: Method, problem: str, seed: int, device: str) -> Any:
    """Build DIRECT's engine of a configuration, with the weights of a checkpoint."""
    assert method.configuration is not None
    require(method.configuration.is_file(), f"{method.configuration}: no such configuration file")
    set_all_seeds(seed)
    with tempfile.TemporaryDirectory() as scratch:
        environment = setup_inference_environment("cell", Path(scratch), device, 0, False, method.configuration)
        # Its log file lies in the folder that goes.
        logging.getLogger().handlers.clear()
    engine = environment.engine
    checkpoint = method.weights(problem)
    require_weights_of(engine.model, checkpoint)
    engine.model.load_state_dict(weights_of(checkpoint))
    engine.model.eval()
    engine.ndim = 2
    return engine


def _tune(engine: PriorEngine, name: str, tuning: Tuning, validation: Sequence[Case], track: Track) -> float:
    """Set the key that is tuned to the best of its values, and return that."""
    *sections, key = tuning.key.split(".")
    owner: Any = engine.settings
    for part in sections:
        owner = getattr(owner, part, None)
    require(hasattr(owner, key), f"methods.{name}.tune.key is {tuning.key!r}: no key of the model section")

    def by_value(value: float, case: Case) -> torch.Tensor:
        setattr(owner, key, value)
        return _by_prior(engine, case).image

    best = best_value(tuning.values, validation, by_value, name, track)
    setattr(owner, key, best)
    return best


@torch.no_grad()
def _by_prior(engine: PriorEngine, case: Case) -> _Result:
    result = engine.reconstruction(case.problem)
    evaluations = sum(float(value) for key, value in result.arrays.items() if key.endswith("evaluations"))
    return _Result(result.image / case.problem.scale[:, None, None], evaluations, result.arrays)


def _posterior_row(method: str, problem: str, label: str, result: _Result, sampling: Any, case: Case) -> PosteriorRow:
    chains = sampling.num_samples
    return posterior_row(
        method, problem, label, result.arrays, chains=chains, num_samples=chains * getattr(sampling, "keep", 1),
        scale=case.problem.scale, reference=case.reference,
    )  # fmt: skip


def _by_direct(engine: Any, method: Method, data: _Data, root: Path) -> Prepare:
    """Return the reconstruction of any other model of DIRECT, from batches scaled as its own configuration asks for."""
    assert method.configuration is not None
    transforms = OmegaConf.to_container(OmegaConf.load(data.configuration).inference.dataset.transforms)
    assert isinstance(transforms, dict)
    transforms.pop("normalization", None)
    dataset = inference_dataset(method.configuration, root, transforms=transforms)
    # DIRECT numbers the slices of a volume as they come.
    indices = {Path(path).name: list(numbers) for path, numbers in dataset.volume_indices.items()}

    def prepare(case: Case) -> Reconstruct:
        batch = default_collate([dataset[indices[case.volume][case.slice_number]]])
        batch = dict_to_device(batch, data.device)

        @torch.no_grad()
        def reconstruct() -> _Result:
            image = engine._do_iteration(batch).output_image
            image = torch.view_as_complex(image.contiguous()) if image.shape[-1] == 2 else image
            return _Result(image * (batch["scaling_factor"] / case.problem.scale)[:, None, None])

        return reconstruct

    return prepare
