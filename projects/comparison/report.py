"""Gather what the benchmarks of the comparison found.

    python -m projects.comparison.report runs/comparison projects/comparison/results

Writes table1.md: PSNR and SSIM of every method on every mask, and by how much DEEPEN is above each on the mean of the
masks; table2.md: trained on one mask and used on another, and how much that costs DEEPEN and ELDER; training.md: how
long every training took; mismatch.png: pictures of Table II. The figures and rows of the benchmarks are copied beside.
"""

import shutil
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from direct_deepen.evaluation.benchmark import pictures
from direct_deepen.evaluation.study import load_study
from direct_deepen.evaluation.tables import interval_over_volumes, read_results
from direct_deepen.pages.plots import plot_comparison
from projects.common import exit_code, seconds_spent
from projects.comparison.run import HALF_STEP, MASKS, MISMATCHED, WITH_MASK, WITHOUT_MASK, Plan
from projects.reports import folders_of

EXCHANGED = ("deepen", "elder", HALF_STEP)
"""What Table II has, DEEPEN first."""

NOTE = """
`muse` is trained with `image_energy_weight: 0.3`, a term that MuSE's own objective has not.
"""

Cells = dict[tuple[str, str], list[Any]]


def cells_of(path: Path) -> Cells:
    """Return the rows of every mask and method."""
    cells: Cells = {}
    for row in read_results([path]).itertuples():
        cells.setdefault((row.mask, row.method), []).append(row)
    return cells


def difference(better: Sequence[Any], other: Sequence[Any]) -> dict[str, float]:
    """Return the differences in PSNR of the same slices, by case."""
    psnr = {row.case: row.psnr for row in other}
    return {row.case: row.psnr - psnr[row.case] for row in better}


def mean_of(differences: Sequence[dict[str, float]]) -> str:
    """Return the mean over several comparisons of the same slices, with its interval over volumes."""
    together = {case: float(np.mean([values[case] for values in differences])) for case in differences[0]}
    mean, half = interval_over_volumes(together)
    return f"{mean:+.2f} ± {half:.2f}"


def figures(rows: Sequence[Any]) -> str:
    """Return PSNR and SSIM over slices."""
    psnr, ssim = np.array([row.psnr for row in rows]), np.array([row.ssim for row in rows])
    return f"{psnr.mean():.2f} ± {psnr.std():.2f} / {ssim.mean():.3f}"


def table1(cells: Cells) -> str:
    """Every method on every mask."""
    methods = list(dict.fromkeys(method for _, method in cells))
    lines = [f"| | {' | '.join(MASKS)} | DEEPEN − method, mean (dB) |", f"|---|{'---|' * (len(MASKS) + 1)}"]
    for method in methods:
        found = [cells.get((mask, method)) for mask in MASKS]
        line = " | ".join("" if rows is None else figures(rows) for rows in found)
        paired = [
            difference(cells[mask, "deepen"], rows)
            for mask, rows in zip(MASKS, found, strict=True)
            if rows is not None and (mask, "deepen") in cells
        ]
        last = mean_of(paired) if method != "deepen" and len(paired) == len(MASKS) else ""
        lines.append(f"| {method} | {line} | {last} |")
    return "\n".join(lines) + "\n" + NOTE * ("muse" in methods)


def table2(cells: Cells) -> str:
    """Trained on one mask, used on another."""
    masks = (*MISMATCHED, "radial")
    lines = [
        f"| trained on | method | {' | '.join(f'used on {mask}' for mask in masks)} |",
        f"|---|---|{'---|' * len(masks)}",
    ]
    for trained in MISMATCHED:
        for system in EXCHANGED:
            line = " | ".join(figures(cells[mask, f"{system}_{trained}"]) for mask in masks)
            lines.append(f"| {trained} | {system} | {line} |")
    lines.append(f"| | sense | {' | '.join(figures(cells[mask, 'sense']) for mask in masks)} |")
    drops = {
        system: [
            difference(cells[used, f"{system}_{used}"], cells[used, f"{system}_{trained}"])
            for trained, used in permutations(MISMATCHED, 2)
        ]
        for system in EXCHANGED
    }
    names = [f"{trained} → {used}" for trained, used in permutations(MISMATCHED, 2)]
    lines += ["", f"| drop (dB) | {' | '.join(names)} | mean |", f"|---|{'---|' * (len(names) + 1)}"]
    for system, values in drops.items():
        each = " | ".join(mean_of([value]) for value in values)
        lines.append(f"| {system} | {each} | {mean_of(values)} |")
    lines.append("")
    for system in EXCHANGED[1:]:
        gain = [
            {case: other[case] - deepen[case] for case in deepen}
            for deepen, other in zip(drops["deepen"], drops[system], strict=True)
        ]
        lines.append(f"Drop of {system} minus drop of DEEPEN, mean of the six: {mean_of(gain)} dB.")
    return "\n".join(lines) + "\n"


def training_times(plan: Plan) -> str:
    """How long every training took."""
    systems = (*WITHOUT_MASK, *WITH_MASK)
    lines = [f"| | {' | '.join(MASKS)} |", f"|---|{'---|' * len(MASKS)}"]
    for system in systems:
        folders = [plan.folder(system, mask) for mask in MASKS]
        times = [f"{seconds_spent(folder):.0f}" if exit_code(folder) == 0 else "" for folder in folders]
        lines.append(f"| {system} | {' | '.join(times)} |")
    return "\n".join(lines) + "\n" + NOTE


def main() -> None:
    """Write the tables and pictures."""
    runs, results = folders_of(__doc__)
    first, second = runs / "table1", runs / "table2"
    (results / "table1.md").write_text(table1(cells_of(first / "results.csv")), encoding="utf-8")
    (results / "table2.md").write_text(table2(cells_of(second / "results.csv")), encoding="utf-8")
    (results / "training.md").write_text(training_times(Plan(runs, runs / "data")), encoding="utf-8")
    for folder in (first, second):
        for name in ("results.csv", "versions.json"):
            shutil.copy(folder / name, results / f"{folder.name}_{name}")
        details = (folder / "table.md").read_text(encoding="utf-8")
        note = NOTE if "| muse |" in details else ""
        (results / f"{folder.name}_details.md").write_text(details + note, encoding="utf-8")
    for picture in first.glob("*.png"):
        shutil.copy(picture, results / picture.name.replace("_comparison", ""))
    study = load_study(runs / "table2.yaml")
    for mask in ("1d2x", "radial"):
        plot_comparison(pictures(study, second, mask, count=1), results / f"mismatch_{mask}.png")


if __name__ == "__main__":
    main()
