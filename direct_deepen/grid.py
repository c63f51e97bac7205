"""The grid of a benchmark: every method on every problem, one process a cell, and the tables over all of them."""

import json
import logging
import multiprocessing
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from queue import Queue

import h5py
import numpy as np
import torch
from scipy.stats import t as student
from tqdm import tqdm

import direct_deepen
from direct_deepen.cell import DEVIATIONS, IMAGES, POSTERIOR_ROWS, REFERENCES, ROWS, CellRow, run_cell
from direct_deepen.cell_posterior import PosteriorRow
from direct_deepen.csv_files import read_csv, write_csv
from direct_deepen.errors import DeepenError, require
from direct_deepen.files import write_text
from direct_deepen.scoring import Picture
from direct_deepen.study import Method, Study


def cell_folder(output: Path, problem: str, method: str) -> Path:
    """Return where a cell lies."""
    return output / "cells" / problem / method


def run_grid(study: Study, output: Path, *, jobs: int = 1, device: str = "cpu") -> list[str]:
    """Run the cells that are not there yet, and return one line for every cell that failed.

    A cell that fails leaves ``error.txt`` in its folder and the others alone; it is tried again by the next run.
    ``jobs`` cells run at once, each on its share of the cores.
    """
    missing = [
        (problem, method)
        for problem, method in study.cells()
        if not (cell_folder(output, problem, method.name) / ROWS).is_file()
    ]
    cores = sorted(os.sched_getaffinity(0))
    require(1 <= jobs <= len(cores), f"jobs is {jobs!r}; allowed: 1 to {len(cores)}, the cores here")
    shares: Queue[list[int]] = Queue()
    for job in range(jobs):
        shares.put(cores[job::jobs])
    bar = tqdm(total=len(missing), desc="cells", unit="cell", disable=None)

    def run(cell: tuple[str, Method]) -> str | None:
        problem, method = cell
        folder = cell_folder(output, problem, method.name)
        share = shares.get()
        failure = _run_in_process(partial(run_cell, study, problem, method, folder, device=device), folder, share)
        shares.put(share)
        bar.update()
        return None if failure is None else f"{problem} {method.name}: {failure}"

    # The threads only wait for the processes.
    with ThreadPoolExecutor(jobs) as pool:
        failures = [failure for failure in pool.map(run, missing) if failure is not None]
    bar.close()
    return failures


def _run_in_process(cell: Callable[[], None], folder: Path, cores: Sequence[int]) -> str | None:
    """Run a cell in a process of its own: its peak of memory is the method's, and what breaks it stays there.

    Returns
    -------
    None, or one line about what broke.
    """
    folder.mkdir(parents=True, exist_ok=True)
    error = folder / "error.txt"
    error.unlink(missing_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(cell, error, cores))
    process.start()
    process.join()
    if process.exitcode == 0:
        return None
    return error.read_text(encoding="utf-8") if error.is_file() else f"exit code {process.exitcode}"


def _run(cell: Callable[[], None], error: Path, cores: Sequence[int]) -> None:
    os.sched_setaffinity(0, cores)
    # DIRECT tells at the level of information what it builds.
    logging.disable(logging.INFO)
    try:
        cell()
    except (Exception, SystemExit) as failure:
        # Whatever it was, it is the caller's to tell: this process ends here.
        text = str(failure.__cause__ or failure) if isinstance(failure, SystemExit) else str(failure)
        kind = "" if isinstance(failure, DeepenError | SystemExit) else f"{type(failure).__name__}: "
        with suppress(DeepenError):
            # On a full disk the exit code has to do.
            write_text(error, kind + (text.splitlines() or [""])[0])
        raise SystemExit(1) from failure


def gather(study: Study, output: Path) -> list[CellRow]:
    """Return the rows of all cells that are there, problem by problem in the order of the study."""
    return _gather(study, output, ROWS, CellRow)


def gather_posteriors(study: Study, output: Path) -> list[PosteriorRow]:
    """Return what the cells that are there say of posteriors, in the same order; methods without one say nothing."""
    return _gather(study, output, POSTERIOR_ROWS, PosteriorRow)


def _gather[Row: (CellRow, PosteriorRow)](study: Study, output: Path, name: str, row: type[Row]) -> list[Row]:
    paths = [cell_folder(output, problem, method.name) / name for problem, method in study.cells()]
    return [found for path in paths if path.is_file() for found in read_csv(path, row)]


def write_results(study: Study, output: Path) -> str:
    """Write results.csv, posterior.csv where there are posteriors, versions.json and table.md, and return the table."""
    rows, posteriors = gather(study, output), gather_posteriors(study, output)
    require(len(rows) > 0, f"{output}: no cell is done")
    write_csv(output / "results.csv", [asdict(row) for row in rows])
    if posteriors:
        write_csv(output / "posterior.csv", [asdict(row) for row in posteriors])
    versions = {
        "direct_deepen": direct_deepen.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "seed": study.seed,
    }
    write_text(output / "versions.json", json.dumps(versions, indent=1) + "\n")
    text = "\n".join(
        _table(problem, rows, study.reference) + _posterior_table(problem, posteriors) for problem in study.problems
    )
    write_text(output / "table.md", text)
    return text


def paired_interval(better: Sequence[CellRow], other: Sequence[CellRow]) -> tuple[float, float]:
    """Return mean and half width of the 95 % interval of the mean difference in PSNR of the same slices."""
    psnr = {row.case: row.psnr for row in other}
    return interval_over_volumes({row.case: row.psnr - psnr[row.case] for row in better})


def interval_over_volumes(values: Mapping[str, float]) -> tuple[float, float]:
    """Return mean and half width of the 95 % interval of the mean of values by case, ``<volume>#<slice>``.

    Slices of a volume are alike: the interval is Student's, of the means of the volumes.
    """
    by_volume: dict[str, list[float]] = {}
    for case, value in values.items():
        by_volume.setdefault(case.rpartition("#")[0], []).append(value)
    means = np.array([np.mean(found) for found in by_volume.values()])
    mean, count = float(np.mean(list(values.values()))), len(means)
    if count < 2:
        return mean, float("nan")
    return mean, float(student.ppf(0.975, count - 1) * means.std(ddof=1) / count**0.5)


def _table(problem: str, rows: Sequence[CellRow], reference: str) -> str:
    mine = [row for row in rows if row.mask == problem]
    by_method = {
        name: [row for row in mine if row.method == name] for name in dict.fromkeys(row.method for row in mine)
    }
    lines = [
        f"### {problem}",
        "",
        f"| method | PSNR (dB) | SSIM | NMSE | {reference} − method (dB) | seconds a slice | evaluations | memory (MB) "
        "| parameters | tuned |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in by_method.items():
        psnr, ssim, nmse = (_column(found, key) for key in ("psnr", "ssim", "nmse"))
        paired = ""
        if name != reference and reference in by_method:
            mean, half = paired_interval(by_method[reference], found)
            paired = f"{mean:+.2f} ± {half:.2f}"
        seconds, evaluations = (_column(found, key).mean() for key in ("seconds", "gradient_evaluations"))
        tuned = "" if np.isnan(found[0].tuned) else f"{found[0].tuned:.3g}"
        lines.append(
            f"| {name} | {psnr.mean():.2f} ± {psnr.std():.2f} | {ssim.mean():.3f} ± {ssim.std():.3f} "
            f"| {nmse.mean():.4f} ± {nmse.std():.4f} | {paired} | {seconds:.3g} | {evaluations:.0f} "
            f"| {found[0].peak_memory_mb:.0f} | {found[0].parameters:,} | {tuned} |"
        )
    count = len(next(iter(by_method.values()), []))
    lines += [
        "",
        f"{count} slices; ± over slices, in the fifth column the 95 % interval of the mean difference over volumes.",
        "",
    ]
    return "\n".join(lines)


def _posterior_table(problem: str, rows: Sequence[PosteriorRow]) -> str:
    mine = [row for row in rows if row.mask == problem]
    if not mine:
        return ""
    lines = [
        "| posterior | samples | seconds a sample | evaluations a sample | standard deviation | error of the mean "
        "| coverage of 90 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.method for row in mine):
        found = [row for row in mine if row.method == name]
        seconds, evaluations, std, error, coverage = (
            _column(found, key).mean()
            for key in ("sample_seconds", "sample_evaluations", "std", "error", "coverage_90")
        )
        lines.append(
            f"| {name} | {found[0].num_samples} | {seconds:.3g} | {evaluations:.0f} | {std:.4f} | {error:.4f} "
            f"| {coverage:.1%} |"
        )
    return "\n".join([*lines, "", "Means over the pixels of the object and over slices, in scaled intensities.", ""])


def _column(rows: Sequence[CellRow] | Sequence[PosteriorRow], key: str) -> np.ndarray:
    return np.array([getattr(row, key) for row in rows], dtype=float)


def pictures(study: Study, output: Path, problem: str, *, count: int) -> list[Picture]:
    """Return what the figure of a problem shows: ``count`` slices of different volumes, spread over the set."""
    images = _image_files(study, output, problem, IMAGES)
    deviations = _image_files(study, output, problem, DEVIATIONS)
    if not images:
        return []
    references = output / "cells" / problem / REFERENCES
    with h5py.File(references, "r") as file:
        labels = list(file)
    step = max(1, len(labels) // count)
    chosen = labels[step // 2 :: step][:count]

    def read(path: Path, label: str) -> torch.Tensor:
        with h5py.File(path, "r") as file:
            return torch.from_numpy(file[label][()])

    return [
        Picture(
            label,
            read(references, label),
            {name: read(path, label) for name, path in images.items()},
            {name: read(path, label) for name, path in deviations.items()},
        )
        for label in chosen
    ]


def _image_files(study: Study, output: Path, problem: str, kind: str) -> dict[str, Path]:
    """Return where the cells of a problem have their images of a kind, by method."""
    paths = {method.name: cell_folder(output, name, method.name) / kind for name, method in study.cells()
             if name == problem}  # fmt: skip
    return {name: path for name, path in paths.items() if path.is_file()}
