"""Tabulate and draw what run.py left: `python -m projects.stability.report runs/stability projects/stability/results`.

For every run: largest |E⁺ − E⁻|/E₀ and curvature of any logged median, rollbacks, updates until the first trouble, and
the PSNR of MAP on the validation volumes (DIRECT's `fastmri_psnr`) after the warm start and at the end.
"""

import csv
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from projects.common import exit_code
from projects.stability.run import FACTORS, runs_of

mpl.use("Agg")
import matplotlib.pyplot as plt

from projects.reports import folders_of

PSNR = "val/validation/fastmri_psnr_metric"
TROUBLE = re.compile(r"teration (\d+): ([^\n]*?)(?:; allowed: finite values within model\.objective\.guard|\. Back to)")
NOISE_STD = 0.01


def law(factor: float) -> float:
    """Return the curvature at which a unit step has the variance of the data noise: c² = 1/(h(2 − h))."""
    return 1 - math.sqrt(1 - 1 / factor**2) if factor >= 1 else math.nan


def lines_of(run: Path) -> list[dict[str, Any]]:
    """Return what DIRECT logged, one entry for every iteration, the last where a run went on."""
    path = run / "metrics.json"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return list({line["iteration"]: line for line in lines}.values())


def summary(folder: Path, size: int) -> dict[str, Any]:
    """Return the figures of a run."""
    lines = lines_of(folder)
    contrastive = [line for line in lines if "train/energy_gap" in line]
    unit = 0.5 * size**2 * NOISE_STD**2
    log = (folder / "output.log").read_text(encoding="utf-8", errors="replace") if folder.is_dir() else ""
    trouble = TROUBLE.search(log)
    validated = {line["iteration"]: line[PSNR] for line in lines if PSNR in line}
    code = exit_code(folder)
    first = contrastive[0]["iteration"] if contrastive else 0
    start = [value for iteration, value in validated.items() if iteration < first]
    return {
        "ended": code is not None,
        "trouble": f"{trouble[2][:60]}" if trouble else "",
        "first": int(trouble[1]) if trouble else None,
        "gap": max((abs(line["train/energy_gap"]) / unit for line in contrastive), default=math.nan),
        "last_gap": abs(contrastive[-1]["train/energy_gap"]) / unit if contrastive else math.nan,
        "curvature": max((line["train/curvature"] for line in contrastive), default=math.nan),
        "last_curvature": contrastive[-1]["train/curvature"] if contrastive else math.nan,
        "rollbacks": int(lines[-1].get("train/rollbacks", 0)) if lines else 0,
        "spread": lines[-1].get("train/chain_spread", math.nan) if lines else math.nan,
        "warm": start[-1] if start else math.nan,
        "end": lines[-1].get(PSNR, math.nan) if code == 0 else math.nan,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as Markdown."""

    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("nan", "–") for cell in cells) + " |\n"

    return line(rows[0]) + "|" + "---|" * len(rows[0]) + "\n" + "".join(line(row.values()) for row in rows)


def write(results: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV and Markdown."""
    with (results / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (results / f"{name}.md").write_text(table(rows), encoding="utf-8")


def by_seed(output: Path, study: str, size: int) -> list[dict[str, Any]]:
    """Return one row for every seed of ``seeds`` or ``long``."""
    rows = []
    for run in runs_of(study):
        found = summary(output / run.folder, size)
        if found["ended"]:
            rows.append(
                {
                    "seed": run.seed,
                    "rollbacks": found["rollbacks"],
                    "largest |E⁺ − E⁻|/E₀": f"{found['gap']:.2f}",
                    "at the end": f"{found['last_gap']:.2f}",
                    "largest curvature": f"{found['curvature']:.2f}",
                    "curvature at the end": f"{found['last_curvature']:.2f}",
                    "spread of chains (ε)": f"{found['spread']:.2f}",
                    "MAP after warm start (dB)": f"{found['warm']:.2f}",
                    "MAP at the end (dB)": f"{found['end']:.2f}",
                }
            )
    return rows


def remedies(output: Path) -> list[dict[str, Any]]:
    """Return one row for every set of remedies, with the three seeds beside each other."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs_of("seeds"):
        if run.seed < 3:
            groups.setdefault("defaults", []).append(summary(output / run.folder, 32) | {"offset": 300})
    for run in runs_of("remedies"):
        if exit_code(output / run.folder) is not None:
            groups.setdefault(run.name, []).append(summary(output / run.folder, 32) | {"offset": 0})

    def cell(values: list[str]) -> str:
        return ", ".join(values)

    return [
        {
            "recipe": name,
            "updates until trouble": cell(
                ["none in 200" if f["first"] is None else str(f["first"] - f["offset"]) for f in found]
            ),
            "trouble": cell(sorted({f["trouble"] for f in found if f["trouble"]})) or "none",
            "largest |E⁺ − E⁻|/E₀": cell([f"{f['gap']:.1f}" for f in found]),
            "largest curvature": cell([f"{f['curvature']:.2f}" for f in found]),
            "MAP at the end (dB)": cell(["none" if math.isnan(f["end"]) else f"{f['end']:.2f}" for f in found]),
        }
        for name, found in groups.items()
    ]


def noise(output: Path, results: Path) -> list[dict[str, Any]]:
    """Return one row for every factor of the data noise, and draw the curvature over the updates."""
    rows = []
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for (name, factor), run in zip(FACTORS.items(), runs_of("noise"), strict=True):
        folder = output / run.folder
        found = summary(folder, 32)
        if not found["ended"]:
            continue
        contrastive = [line for line in lines_of(folder) if "train/curvature" in line]
        curvatures = [line["train/curvature"] for line in contrastive]
        rows.append(
            {
                "c": name,
                "law h": f"{law(factor):.3f}",
                "curvature, median of the last 100 updates": f"{np.median(curvatures[-5:]):.3f}" if curvatures else "",
                "largest": f"{found['curvature']:.2f}",
                "updates until trouble": "none in 200" if found["first"] is None else found["first"] - 300,
                "|E⁺ − E⁻|/E₀ at the end": f"{found['last_gap']:.2f}",
                "MAP at the end (dB)": f"{found['end']:.2f}",
            }
        )
        if len(contrastive) < 2:
            # Trouble came at once: no line to draw.
            continue
        (line,) = axes.plot(
            [entry["iteration"] - 300 for entry in contrastive], curvatures, label=f"c = {name.replace('sqrt', '√')}"
        )
        if factor >= 1:
            axes.axhline(law(factor), color=line.get_color(), linestyle=":")
    axes.set(xlabel="contrastive update", ylabel="largest difference quotient of ∇E", yscale="log")
    axes.plot([], [], "k:", label="h of the law")
    axes.legend(ncols=2)
    figure.savefig(results / "noise.png", dpi=120)
    plt.close(figure)
    return rows


def curves(output: Path, results: Path) -> None:
    """Draw gap and curvature of the runs with different seeds."""
    figure, panels = plt.subplots(2, 2, figsize=(10, 6), layout="constrained", sharex="col")
    for column, (study, size) in enumerate((("seeds", 32), ("long", 64))):
        unit = 0.5 * size**2 * NOISE_STD**2
        for run in runs_of(study):
            lines = [line for line in lines_of(output / run.folder) if "train/energy_gap" in line]
            if not lines:
                continue
            updates = [line["iteration"] - lines[0]["iteration"] for line in lines]
            panels[0, column].plot(updates, [line["train/energy_gap"] / unit for line in lines], linewidth=0.8)
            panels[1, column].plot(updates, [line["train/curvature"] for line in lines], linewidth=0.8)
        panels[0, column].set(title=f"{size}×{size}, a line for every seed", ylabel="gap (E⁺ − E⁻)/E₀")
        panels[1, column].set(xlabel="contrastive update", ylabel="largest difference quotient of ∇E")
    figure.savefig(results / "curves.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Write all tables and figures of the studies that have runs."""
    output, results = folders_of(__doc__)
    tables = {
        "seeds": by_seed(output, "seeds", 32),
        "long": by_seed(output, "long", 64),
        "remedies": remedies(output),
        "noise": noise(output, results),
    }
    for name, rows in tables.items():
        if rows:
            write(results, name, rows)
            print(table(rows))
    curves(output, results)


if __name__ == "__main__":
    main()
