"""One page about one or several runs: curves of trainings, tables of results, drawings."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from direct_deepen.errors import DeepenError, require
from direct_deepen.files import read_text
from direct_deepen.pages.html_page import render
from direct_deepen.pages.training_curves import LOG, Curve, plot_curves, read_curves, shown_curves

type Rows = list[dict[str, str]]
"""A table: text by the name of the column."""

_TEXTS = ("table.md", "config.yaml")
_CASE = "case"
"""Column of what tables have a row of: slices."""


def build_report(runs: Sequence[Path]) -> str:
    """Return the page about folders of `direct train`, `direct-deepen benchmark` and `calibrate`.

    Trainings come first, all in the same drawings; then the tables, drawings and texts of every folder that has any.
    """
    names = [run.resolve().name for run in runs]
    require(len(set(names)) == len(names), f"runs are {', '.join(names)}; allowed: folders of different names")
    for run in runs:
        require(run.is_dir(), f"{run}: no such folder")
        found = (run / LOG).is_file() or any(any(run.glob(kind)) for kind in ("*.csv", "*.png", "table.md"))
        require(found, f"{run}: neither {LOG} of a training, nor tables, nor drawings")
    by_name = dict(zip(names, runs, strict=True))
    trainings = curves_of(runs)
    return render(
        "report.html",
        curves=[(title, plot_curves(found)) for title, found in shown_curves(trainings)],
        runs=[{"name": name, **_results(run)} for name, run in by_name.items()],
    )


def sources(runs: Sequence[Path]) -> list[Path]:
    """Return the files that the page about folders is made of."""
    kinds = ("*.csv", "*.png", LOG, *_TEXTS)
    return [path for run in runs for kind in kinds for path in run.glob(kind)]


def curves_of(runs: Sequence[Path]) -> dict[str, dict[str, Curve]]:
    """Return the curves of the trainings among folders, by the names of these."""
    return {run.resolve().name: read_curves(run) for run in runs if (run / LOG).is_file()}


def _results(run: Path) -> dict[str, Any]:
    return {
        "tables": {path.stem: summary(read_table(path)) for path in sorted(run.glob("*.csv"))},
        "drawings": {path.stem: path.read_bytes() for path in sorted(run.glob("*.png"))},
        "texts": {name: (run / name).read_text(encoding="utf-8") for name in _TEXTS if (run / name).is_file()},
    }


def read_table(path: Path) -> Rows:
    """Read a CSV file, which is to hold rows of one length."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DeepenError(f"{path}: no table: {error}") from error
    # Cells beyond the head have the name None, and cells that are not there are None.
    fits = len(rows) > 0 and not any(None in (*row, *row.values()) for row in rows)
    require(
        fits, f"{path}: no table of equally long rows under {reader.fieldnames}; allowed: what direct-deepen writes"
    )
    return rows


def summary(rows: Rows) -> Rows:
    """Return a table to be read: of rows for every slice mean ± standard deviation over slices, in the order they come.

    Slices are averaged where all other text is the same. Columns without a number or text are left out.
    """
    numbers = {name: found for name in rows[0] if (found := _numbers(row[name] for row in rows)) is not None}
    texts = [name for name in rows[0] if name not in numbers and name != _CASE]
    groups: dict[tuple[object, ...], list[int]] = {}
    for position, row in enumerate(rows):
        key = tuple(row[name] for name in texts) if _CASE in row else (position,)
        groups.setdefault(key, []).append(position)
    shown = [name for name in rows[0] if name in texts or (name in numbers and not np.isnan(numbers[name]).all())]
    return [
        {name: mean_text(numbers[name][found]) if name in numbers else rows[found[0]][name] for name in shown}
        for found in groups.values()
    ]


def mean_text(values: np.ndarray) -> str:
    """Return mean ± standard deviation, to three digits of that; what is not a number is left out."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return ""
    # An image without an error has an infinite PSNR, and infinite numbers have no standard deviation.
    with np.errstate(invalid="ignore"):
        mean, spread = float(values.mean()), float(values.std())
    if 0 < spread < np.inf:
        decimals = max(0, 2 - int(np.floor(np.log10(spread))))
        return f"{mean:,.{decimals}f} ± {spread:,.{decimals}f}"
    return f"{mean:,.0f}" if mean.is_integer() else f"{mean:.4g}"


def _numbers(cells: Iterable[str]) -> np.ndarray | None:
    """Return a column as numbers, not a number where it is blank; None if it has text."""
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError:
        return None
