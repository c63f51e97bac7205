"""One cell of a benchmark: one method on one problem, tuned on validation data and scored on test data."""

import csv
import logging
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from direct.environment import setup_inference_environment
from direct.utils import set_all_seeds
from omegaconf import OmegaConf
from torch.utils.data import default_collate

from direct_deepen.classical import CLASSICAL
from direct_deepen.data.problems import Case, cases, inference_dataset
from direct_deepen.engines.checkpoints import require_weights_of, weights_of
from direct_deepen.engines.prior_engine import PriorEngine, all_cores
from direct_deepen.errors import require
from direct_deepen.metrics import quality
from direct_deepen.scoring import REGULARIZATIONS
from direct_deepen.study import ZERO_FILLED, Method, Study

IMAGES = "images.h5"
ROWS = "rows.csv"


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
        Growth of the peak of resident memory since model and data were loaded, over the whole cell.
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


Reconstruct = Callable[[Case], _Result]


def run_cell(study: Study, problem: str, method: Method, folder: Path) -> None:
    """Reconstruct all test slices, and write images, and last of all the rows, to a folder.

    It is meant for a process of its own, so that the peak of memory is that of the method.

    Raises
    ------
    DeepenError
        If a file is missing or does not fit.
    """
    configuration = study.problems[problem]
    test = list(cases(inference_dataset(configuration, study.test)))
    validation = list(cases(inference_dataset(configuration, study.validation)))
    parameters = 0
    with all_cores("cpu"):
        if method.classical is not None:
            reconstruct, tuned = _classical(method.classical, validation)
        else:
            engine = _engine(method, problem, study.seed)
            parameters = sum(tensor.numel() for tensor in engine.model.parameters())
            if isinstance(engine, PriorEngine):
                tuned = _tune(engine, method, validation)
                reconstruct = lambda case: _by_prior(engine, case)  # noqa: E731
            else:
                require(
                    method.tune is None,
                    f"methods.{method.name}.tune: {type(engine).__name__} has no settings to tune; allowed: no tune",
                )
                tuned, reconstruct = float("nan"), _by_direct(engine, method, configuration, study.test)
        before = _peak_memory_mb()
        rows, images = [], {}
        for case in test:
            begin = time.perf_counter()
            result = reconstruct(case)
            seconds = time.perf_counter() - begin
            score = quality(result.image[0], case.reference[0])
            label = f"{case.volume}#{case.slice_number}"
            images[label] = result.image[0].abs().float().numpy()
            rows.append(
                CellRow(
                    method.name, problem, label, score.psnr, score.ssim, score.nmse, seconds, result.evaluations,
                    0.0, parameters, study.seed, tuned,
                )
            )  # fmt: skip
    peak = _peak_memory_mb() - before
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / IMAGES, "w") as file:
        for label, image in images.items():
            file[label] = image
    write_rows(folder / ROWS, [replace(row, peak_memory_mb=peak) for row in rows])


def write_rows(path: Path, rows: Sequence[CellRow]) -> None:
    """Write rows so that a reader never finds half a file."""
    temporary = path.with_suffix(".part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(CellRow.__dataclass_fields__))
        writer.writeheader()
        for row in rows:
            cells = asdict(row).items()
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in cells})
    os.replace(temporary, path)


def read_rows(path: Path) -> list[CellRow]:
    """Read the rows of a cell."""
    types = {"int": int, "float": float, "str": str}
    with path.open(encoding="utf-8") as file:
        return [
            CellRow(**{
                name: types[getattr(field.type, "__name__", str(field.type))](row[name])
                for name, field in CellRow.__dataclass_fields__.items()
            })
            for row in csv.DictReader(file)
        ]  # fmt: skip


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _best(values: Sequence[float], validation: Sequence[Case], reconstruct: Callable[[float, Case], _Result]) -> float:
    """Return the value with the highest mean PSNR."""

    def score(value: float) -> float:
        return float(np.mean([quality(reconstruct(value, c).image[0], c.reference[0]).psnr for c in validation]))

    return max(values, key=score)


def _classical(kind: str, validation: Sequence[Case]) -> tuple[Reconstruct, float]:
    def by(regularization: float, case: Case) -> _Result:
        A, masked_kspace = case.problem.A, case.problem.masked_kspace
        return _Result(CLASSICAL[kind](A, masked_kspace, regularization=regularization))

    if kind == ZERO_FILLED:
        return lambda case: _Result(case.problem.A.adjoint(case.problem.masked_kspace)), float("nan")
    tuned = _best(REGULARIZATIONS, validation, by)
    return lambda case: by(tuned, case), tuned


def _engine(method: Method, problem: str, seed: int) -> Any:
    """Build DIRECT's engine of a configuration, with the weights of a checkpoint."""
    assert method.configuration is not None
    require(method.configuration.is_file(), f"{method.configuration}: no such configuration file")
    set_all_seeds(seed)
    with tempfile.TemporaryDirectory() as scratch:
        environment = setup_inference_environment("cell", Path(scratch), "cpu", 0, False, method.configuration)
        # Its log file lies in the folder that goes.
        logging.getLogger().handlers.clear()
    engine = environment.engine
    checkpoint = method.weights(problem)
    require_weights_of(engine.model, checkpoint)
    engine.model.load_state_dict(weights_of(checkpoint))
    engine.model.eval()
    engine.ndim = 2
    return engine


def _tune(engine: PriorEngine, method: Method, validation: Sequence[Case]) -> float:
    """Set the key that is tuned to the best of its values, and return that."""
    if method.tune is None:
        return float("nan")
    *sections, name = method.tune.key.split(".")
    owner: Any = engine.settings
    for part in sections:
        owner = getattr(owner, part, None)
    require(hasattr(owner, name), f"methods.{method.name}.tune.key is {method.tune.key!r}: no key of the model section")

    def by(value: float, case: Case) -> _Result:
        setattr(owner, name, value)
        return _by_prior(engine, case)

    tuned = _best(method.tune.values, validation, by)
    setattr(owner, name, tuned)
    return tuned


@torch.no_grad()
def _by_prior(engine: PriorEngine, case: Case) -> _Result:
    result = engine.reconstruction(case.problem)
    evaluations = sum(float(value) for key, value in result.arrays.items() if key.endswith("evaluations"))
    return _Result(result.image / case.problem.scale[:, None, None], evaluations)


def _by_direct(engine: Any, method: Method, configuration: Path, data: Path) -> Reconstruct:
    """Return the reconstruction of any other model of DIRECT, from batches scaled as its own configuration asks for."""
    assert method.configuration is not None
    transforms = OmegaConf.to_container(OmegaConf.load(configuration).inference.dataset.transforms)
    assert isinstance(transforms, dict)
    transforms.pop("normalization", None)
    dataset = inference_dataset(method.configuration, data, transforms=transforms)
    samples = {
        (Path(path).name, int(sample["slice_no"])): sample
        for path, indices in dataset.volume_indices.items()
        for sample in (dataset[index] for index in indices)
    }

    @torch.no_grad()
    def reconstruct(case: Case) -> _Result:
        batch = default_collate([samples[case.volume, case.slice_number]])
        image = engine._do_iteration(batch).output_image
        image = torch.view_as_complex(image.contiguous()) if image.shape[-1] == 2 else image
        return _Result(image * (batch["scaling_factor"] / case.problem.scale)[:, None, None])

    return reconstruct
