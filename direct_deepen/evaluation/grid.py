"""The grid of a benchmark: every method on every problem, one process a cell, and the tables over all of them."""

import json
import logging
import multiprocessing
import os
import platform
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Queue

import h5py
import numpy as np
import torch
from scipy.stats import t as student
from tqdm import tqdm

import direct_deepen
from direct_deepen.errors import DeepenError, require
from direct_deepen.evaluation.cell import DEVIATIONS, IMAGES, POSTERIOR_ROWS, REFERENCES, ROWS, CellRow, run_cell
from direct_deepen.evaluation.cell_posterior import PosteriorRow
from direct_deepen.evaluation.csv_files import read_csv, write_csv
from direct_deepen.evaluation.scoring import Picture
from direct_deepen.evaluation.study import Method, Study
from direct_deepen.files import write_text
from direct_deepen.progress import progress_bar

_OUTPUT = "output.log"
"""What a cell prints: its terminal is that of the whole benchmark."""

_logger = logging.getLogger(__name__)


def cell_folder(output: Path, problem: str, method: str) -> Path:
    """Return where a cell lies."""
    return output / "cells" / problem / method


def run_grid(study: Study, output: Path, *, jobs: int = 1, device: str = "cpu") -> list[str]:
    """Run the cells that are not there yet, and return one line for every cell that failed.

    A cell that fails leaves ``error.txt`` in its folder and the others alone; it is tried again by the next run.
    ``jobs`` cells run at once, each on its share of the cores. What a cell prints goes to ``output.log``.
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
    _logger.info("%i of %i cells are done already", len(study.cells()) - len(missing), len(study.cells()))

    def run(cell: tuple[str, Method]) -> str | None:
        problem, method = cell
        name, folder = f"{problem} {method.name}", cell_folder(output, problem, method.name)
        share = shares.get()
        begin = time.perf_counter()
        failure = _run_in_process(partial(run_cell, study, problem, method, folder, device=device), name, folder, share)
        _logger.info("%s: %.1f s on %i cores", name, time.perf_counter() - begin, len(share))
        shares.put(share)
        bar.update()
        return None if failure is None else f"{name}: {failure}"

    # The threads only wait for the processes.
    with progress_bar(name="cells", unit="cell", total=len(missing)) as bar, ThreadPoolExecutor(jobs) as pool:
        return [failure for failure in pool.map(run, missing) if failure is not None]


def _run_in_process(cell: "partial[None]", name: str, folder: Path, cores: Sequence[int]) -> str | None:
    """Run a cell in a process of its own: its peak of memory is the method's, and what breaks it stays there.

    Returns
    -------
    None, or one line about what broke.
    """
    folder.mkdir(parents=True, exist_ok=True)
    error = folder / "error.txt"
    error.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(cell, error, cores, sender))
    process.start()
    # The only other end is that of the process: when it ends, so does what it tells.
    sender.close()
    with progress_bar(name=name, unit="slice") as bar:
        _follow(receiver, bar, name)
    process.join()
    if process.exitcode == 0:
        return None
    return error.read_text(encoding="utf-8") if error.is_file() else f"exit code {process.exitcode}"


def _follow(receiver: Connection, bar: tqdm, name: str) -> None:
    """Show what a cell tells by :func:`_told` until it ends."""
    stage = None
    with suppress(EOFError):
        while True:
            told, done, total = receiver.recv()
            if told != stage:
                stage = told
                bar.set_description(f"{name}, {stage}", refresh=False)
                bar.reset(total)
            bar.update(done - bar.n)


def _told[Item](sender: Connection, items: Iterable[Item], *, name: str, unit: str, total: int) -> Iterator[Item]:
    """Yield items, and tell how many are done and how many there are."""
    sender.send((name, 0, total))
    for done, item in enumerate(items, start=1):
        yield item
        sender.send((name, done, total))


def _run(cell: "partial[None]", error: Path, cores: Sequence[int], sender: Connection) -> None:
    os.sched_setaffinity(0, cores)
    with error.with_name(_OUTPUT).open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            cell(track=partial(_told, sender))
        except (Exception, SystemExit) as failure:
            traceback.print_exc()
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
