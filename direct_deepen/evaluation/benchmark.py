"""A benchmark: every method of a study on every problem, each such run in a process of its own."""

import json
import logging
import multiprocessing
import platform
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from queue import Queue
from typing import Any

import h5py
import torch
from direct.data.transforms import center_crop
from omegaconf import OmegaConf

from direct_deepen.data.cases import Case, cases, coil_maps_of, inference_dataset
from direct_deepen.engines.commands import all_cores
from direct_deepen.errors import DeepenError, require
from direct_deepen.evaluation.methods import Estimate, best_value, in_view, reconstructor
from direct_deepen.evaluation.metrics import PosteriorQuality, posterior_quality, quality
from direct_deepen.evaluation.pictures import DEVIATIONS, IMAGES, REFERENCES, Picture, read_images, write_images
from direct_deepen.evaluation.study import Run, Study
from direct_deepen.evaluation.tables import Frame, read_results, results_table, write_csv
from direct_deepen.files import write_text
from direct_deepen.machine import available_cores, peak_memory_mb, use_cores
from direct_deepen.progress import progress_bar
from direct_deepen.version import VERSION

ROWS = "rows.csv"
"""What a run writes last: where it is, the run is done."""

SAMPLE_COLUMNS = (
    "num_samples", "num_chains", "sample_seconds", "sample_evaluations",
    *(field.name for field in fields(PosteriorQuality))
)  # fmt: skip
"""Columns of the rows that are not a number where a method has no samples."""

_logger = logging.getLogger(__name__)


def run_folder(output: Path, run: Run) -> Path:
    """Return where a run writes."""
    return output / "runs" / run.problem / run.name


# ---- One run


def reconstruct_test_data(study: Study, run: Run, folder: Path, *, device: str = "cpu") -> None:
    """Tune a method, reconstruct all test slices, and write images, and last of all the rows, to a folder.

    The references, which all runs of a problem share, go to the folder above it. It is meant for a process of its own,
    so that the peak of memory is that of the method.
    """
    configuration, maps = study.problems[run.problem], folder.parent / "coil_maps"
    rows: list[dict[str, Any]] = []
    images: dict[str, dict[str, torch.Tensor]] = {IMAGES: {}, DEVIATIONS: {}, REFERENCES: {}}
    with all_cores(device):
        method = reconstructor(study, run, device)
        before, tuned = _peak_memory_mb(device), float("nan")
        if method.candidates:
            tuned = best_value(method, list(_cases(configuration, study.validation, maps, device)))
        for case in _cases(configuration, study.test, maps, device):
            label, reference = f"{case.volume}#{case.slice_number}", in_view(case, case.reference[0])
            images[REFERENCES][label] = reference
            for ending, whole in method.reconstruct(tuned, case).items():
                estimate = replace(whole, image=in_view(case, whole.image), std=in_view(case, whole.std))
                images[IMAGES][f"{run.name}{ending}/{label}"] = estimate.image
                if estimate.std is not None:
                    images[DEVIATIONS][f"{run.name}/{label}"] = estimate.std
                names = {"method": f"{run.name}{ending}", "mask": run.problem, "case": label}
                # Predictions may be cropped where the problem is not, as DIRECT's metrics allow for too.
                rows.append(names | _columns(estimate, center_crop(reference, estimate.image.shape)))
    peak = float("nan") if run.method.predictions else _peak_memory_mb(device) - before
    shared = {"peak_memory_mb": peak, "parameters": method.parameters, "seed": study.seed, "tuned": tuned}
    for name, content in images.items():
        if content:
            write_images((folder.parent if name == REFERENCES else folder) / name, content)
    write_csv(folder / ROWS, [row | shared for row in rows])


def _cases(configuration: Path, root: Path, coil_maps: Path, device: str) -> Iterator[Case]:
    """Yield the slices of a problem, with or without the crop of its predictions."""
    dataset = inference_dataset(configuration, root)
    crops = OmegaConf.select(OmegaConf.load(configuration), "inference.crop") == "header"
    for case in cases(dataset, coil_maps=coil_maps_of(configuration), cache=coil_maps, device=device):
        yield replace(case, cropped=crops)


def _columns(estimate: Estimate, reference: torch.Tensor) -> dict[str, float]:
    """Return what a row has of one estimate alone."""
    columns = asdict(quality(estimate.image, reference))
    columns |= {name: getattr(estimate, name) for name in ("seconds", "gradient_evaluations")}
    if estimate.std is None or estimate.samples is None:
        return columns | dict.fromkeys(SAMPLE_COLUMNS, float("nan"))
    chains = int(estimate.samples["num_chains"])
    samples = posterior_quality(estimate.image, estimate.std, reference, num_chains=chains)
    return columns | dict(estimate.samples) | asdict(samples)


def _peak_memory_mb(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory_mb()


# ---- All runs


def run_study(study: Study, output: Path, *, jobs: int = 1, device: str = "cpu") -> list[str]:
    """Do the runs that are not done yet, and return one line for every run that failed.

    A run that fails leaves ``error.txt`` in its folder and the others alone; it is tried again by the next benchmark.
    ``jobs`` runs go on at once, each on its share of the cores. What a run prints goes to ``output.log``. Missing or
    damaged data are an error before any run begins.
    """
    for configuration in study.problems.values():
        for root in (study.test, study.validation):
            inference_dataset(configuration, root)
    missing = [run for run in study.runs() if not (run_folder(output, run) / ROWS).is_file()]
    cores = available_cores()
    require(1 <= jobs <= len(cores), f"jobs is {jobs!r}; allowed: 1 to {len(cores)}, the cores here")
    shares: Queue[list[int]] = Queue()
    for job in range(jobs):
        shares.put(cores[job::jobs])
    _logger.info("%i of %i runs are done already", len(study.runs()) - len(missing), len(study.runs()))

    def in_process(run: Run) -> str | None:
        share, begin = shares.get(), time.perf_counter()
        failure = _failure(study, run, run_folder(output, run), share, device)
        _logger.info("%s: %.1f s on %i cores", f"{run.problem} {run.name}", time.perf_counter() - begin, len(share))
        shares.put(share)
        bar.update()
        return None if failure is None else f"{run.problem} {run.name}: {failure}"

    # The threads only wait for the processes.
    with progress_bar(name="runs", unit="run", total=len(missing)) as bar, ThreadPoolExecutor(jobs) as pool:
        return [failure for failure in pool.map(in_process, missing) if failure is not None]


def _failure(study: Study, run: Run, folder: Path, cores: Sequence[int], device: str) -> str | None:
    """Do a run in a fresh process, and return what broke it in one line.

    Its peak of memory is the method's, and a process that is killed takes no other with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "error.txt"
    told.unlink(missing_ok=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        error = pool.submit(_run, study, run, folder, cores, device).exception()
    if error is None:
        return None
    with suppress(DeepenError):
        # On a full disk the line that is returned has to do.
        write_text(told, str(error))
    return str(error)


def _run(study: Study, run: Run, folder: Path, cores: Sequence[int], device: str) -> None:
    use_cores(cores)
    with (folder / "output.log").open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            reconstruct_test_data(study, run, folder, device=device)
        except BaseException as error:
            traceback.print_exc()
            # Not every exception can be handed to another process, but a line can.
            kind = "" if isinstance(error, DeepenError) else f"{type(error).__name__}: "
            raise DeepenError(kind + (str(error).splitlines() or [""])[0]) from error


# ---- Results


def gather(study: Study, output: Path) -> Frame:
    """Return the rows of all runs that are done, problem by problem in the order of the study."""
    paths = [run_folder(output, run) / ROWS for run in study.runs()]
    return read_results(path for path in paths if path.is_file())


def write_results(study: Study, output: Path) -> str:
    """Write results.csv, versions.json and table.md of the runs that are done, and return the table."""
    results = gather(study, output)
    require(len(results) > 0, f"{output}: no run is done")
    write_csv(output / "results.csv", results.to_dict("records"))
    versions = {
        "direct_deepen": VERSION,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "seed": study.seed,
        "reference": study.reference,
    }
    write_text(output / "versions.json", json.dumps(versions, indent=1) + "\n")
    text = results_table(results, study.reference)
    write_text(output / "table.md", text)
    return text


def pictures(study: Study, output: Path, problem: str, *, count: int) -> list[Picture]:
    """Return what the figures of a problem show: ``count`` slices of different volumes, spread over the set.

    There are none where no run has images.
    """
    references = output / "runs" / problem / REFERENCES
    if not references.is_file():
        return []
    with h5py.File(references, "r") as file:
        labels = list(file)
        step = max(1, len(labels) // count)
        shown = {label: torch.from_numpy(file[label][()]) for label in labels[step // 2 :: step][:count]}
    folders = [run_folder(output, run) for run in study.runs() if run.problem == problem]
    images, deviations = ([folder / name for folder in folders] for name in (IMAGES, DEVIATIONS))
    return [
        _of_one_size(Picture(label, reference, read_images(images, label), read_images(deviations, label)))
        for label, reference in shown.items()
    ]


def _of_one_size(picture: Picture) -> Picture:
    """Crop images to the smallest: predictions may be cropped where the problem is not."""
    shapes = [image.shape for image in (picture.reference, *picture.images.values())]
    smallest = [min(sizes) for sizes in zip(*shapes, strict=True)]
    images, std = ({k: center_crop(v, smallest) for k, v in part.items()} for part in (picture.images, picture.std))
    return replace(picture, reference=center_crop(picture.reference, smallest), images=images, std=std)
