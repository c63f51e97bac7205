"""The grid of a benchmark: every method on every problem, one process a cell, and the tables over all of them."""

import json
import multiprocessing
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import direct_deepen
from direct_deepen.cell import ROWS, CellRow, read_rows, run_cell, write_rows
from direct_deepen.errors import DeepenError
from direct_deepen.study import Method, Study

_TWO_SIDED_95 = 1.96
"""Standard errors of a normal mean."""


def cell_folder(output: Path, problem: str, method: str) -> Path:
    """Return where a cell lies."""
    return output / "cells" / problem / method


def run_grid(study: Study, output: Path) -> list[str]:
    """Run the cells that are not there yet, and return one line for every cell that failed.

    A cell that fails leaves ``error.txt`` in its folder and the others alone; it is tried again by the next run.
    """
    failures = []
    missing = [
        (problem, method)
        for problem, method in study.cells()
        if not (cell_folder(output, problem, method.name) / ROWS).is_file()
    ]
    context = multiprocessing.get_context("spawn")
    for problem, method in tqdm(missing, desc="cells", unit="cell", disable=None):
        folder = cell_folder(output, problem, method.name)
        folder.mkdir(parents=True, exist_ok=True)
        # A process of its own: its peak of memory is the method's, and what breaks it breaks nothing else.
        process = context.Process(target=_run, args=(study, problem, method, folder))
        process.start()
        process.join()
        error = folder / "error.txt"
        if process.exitcode != 0:
            message = error.read_text(encoding="utf-8") if error.is_file() else f"exit code {process.exitcode}"
            failures.append(f"{problem} {method.name}: {message}")
    return failures


def _run(study: Study, problem: str, method: Method, folder: Path) -> None:
    error = folder / "error.txt"
    error.unlink(missing_ok=True)
    try:
        run_cell(study, problem, method, folder)
    except (Exception, SystemExit) as failure:
        # Whatever it was, it is the caller's to tell: this process ends here.
        text = str(failure.__cause__ or failure) if isinstance(failure, SystemExit) else str(failure)
        kind = "" if isinstance(failure, DeepenError | SystemExit) else f"{type(failure).__name__}: "
        error.write_text(kind + (text.splitlines() or [""])[0], encoding="utf-8")
        raise SystemExit(1) from failure


def gather(study: Study, output: Path) -> list[CellRow]:
    """Return the rows of all cells that are there, problem by problem in the order of the study."""
    rows = []
    for problem, method in study.cells():
        path = cell_folder(output, problem, method.name) / ROWS
        if path.is_file():
            rows += read_rows(path)
    return rows


def write_results(study: Study, output: Path) -> str:
    """Write results.csv, versions.json and table.md, and return the table."""
    rows = gather(study, output)
    write_rows(output / "results.csv", rows)
    versions = {
        "direct_deepen": direct_deepen.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "seed": study.seed,
    }
    (output / "versions.json").write_text(json.dumps(versions, indent=1) + "\n", encoding="utf-8")
    text = "\n".join(_table(problem, rows, study.reference) for problem in study.problems)
    (output / "table.md").write_text(text, encoding="utf-8")
    return text


def paired_interval(better: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return mean and half width of the 95 % interval of the mean difference of paired scores."""
    difference = better - other
    if len(difference) < 2:
        return float(difference.mean()), float("nan")
    return float(difference.mean()), float(_TWO_SIDED_95 * difference.std(ddof=1) / len(difference) ** 0.5)


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
            mean, half = paired_interval(_column(by_method[reference], "psnr"), psnr)
            paired = f"{mean:+.2f} ± {half:.2f}"
        seconds, evaluations = (_column(found, key).mean() for key in ("seconds", "gradient_evaluations"))
        tuned = "" if np.isnan(found[0].tuned) else f"{found[0].tuned:.3g}"
        lines.append(
            f"| {name} | {psnr.mean():.2f} ± {psnr.std():.2f} | {ssim.mean():.3f} ± {ssim.std():.3f} "
            f"| {nmse.mean():.4f} ± {nmse.std():.4f} | {paired} | {seconds:.3g} | {evaluations:.0f} "
            f"| {found[0].peak_memory_mb:.0f} | {found[0].parameters:,} | {tuned} |"
        )
    count = len(next(iter(by_method.values()), []))
    lines += ["", f"{count} slices; ± over slices, in the fifth column the 95 % interval of the mean difference.", ""]
    return "\n".join(lines)


def _column(rows: Sequence[CellRow], key: str) -> np.ndarray:
    return np.array([getattr(row, key) for row in rows], dtype=float)
