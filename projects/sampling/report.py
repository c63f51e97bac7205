"""Gather what the benchmark of the samplers found.

    python -m projects.sampling.report runs/sampling projects/sampling/results

Writes claim.md: quality, spread, coverage and cost of a sample of DEEPEN, ALPS and DPS; evaluations.png: PSNR of the
posterior mean against evaluations; posterior_<problem>.png: MAP, means, errors and standard deviations. The rows and
tables of the benchmark are copied beside.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from direct_deepen.evaluation.benchmark import pictures
from direct_deepen.evaluation.pictures import Picture
from direct_deepen.evaluation.study import Study, load_study
from direct_deepen.evaluation.tables import read_results
from direct_deepen.pages.plots import TITLES, plot_uncertainty
from projects.reports import folders_of
from projects.sampling.run import COMPARED, PROBLEMS, STEPS


def mean(rows: Sequence[Any], mask: str, method: str, key: str) -> float:
    """Return the mean of a column over the slices of a cell; not a number where the cell is missing."""
    values = [getattr(row, key) for row in rows if row.mask == mask and row.method == method]
    return float(np.mean(values)) if values else float("nan")


def claim(rows: Sequence[Any]) -> str:
    """Tabulate every sampler with the evaluations that it is compared with."""
    lines = [
        "| problem | sampler | weights | evaluations a sample | PSNR of the mean (dB) | SSIM "
        "| standard deviation | error of the mean | coverage of 90 % | tuned to |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for problem in PROBLEMS:
        for system, evaluations in COMPARED[problem].items():
            name = f"{system}_{evaluations}"
            quality = {key: mean(rows, problem, name, key) for key in ("psnr", "ssim", "parameters", "tuned")}
            spread = {
                key: mean(rows, problem, name, key) for key in ("sample_evaluations", "std", "error", "coverage_90")
            }
            lines.append(
                f"| {problem} | {TITLES[system]} | {quality['parameters']:,.0f} | {spread['sample_evaluations']:.0f} "
                f"| {quality['psnr']:.2f} | {quality['ssim']:.3f} "
                f"| {spread['std']:.4f} | {spread['error']:.4f} | {spread['coverage_90']:.0%} "
                f"| {quality['tuned']:.3g} |"
            )
    return "\n".join(lines) + "\n"


def curve(rows: Sequence[Any]) -> str:
    """Tabulate the first problem against evaluations."""
    problem = PROBLEMS[0]
    lines = [
        "| sampler | evaluations a sample | PSNR of the mean (dB) | SSIM | standard deviation | error of the mean "
        "| coverage of 90 % | tuned to |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for system, steps in STEPS.items():
        for evaluations in steps:
            name = f"{system}_{evaluations}"
            psnr, ssim, tuned = (mean(rows, problem, name, key) for key in ("psnr", "ssim", "tuned"))
            std, error, coverage = (mean(rows, problem, name, key) for key in ("std", "error", "coverage_90"))
            lines.append(
                f"| {TITLES[system]} | {evaluations} | {psnr:.2f} | {ssim:.3f} | {std:.4f} "
                f"| {error:.4f} | {coverage:.0%} | {tuned:.3g} |"
            )
    return "\n".join(lines) + "\n"


def plot_evaluations(rows: Sequence[Any], path: Path) -> None:
    """Draw PSNR of the mean against evaluations of a sample."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for (system, steps), marker in zip(STEPS.items(), "os^", strict=True):
        psnr = [mean(rows, PROBLEMS[0], f"{system}_{count}", "psnr") for count in steps]
        axes.semilogx(steps, psnr, marker=marker, label=TITLES[system])
    axes.set_xlabel("network evaluations a sample")
    axes.set_ylabel("PSNR of the posterior mean (dB)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def compared(picture: Picture, problem: str) -> Picture:
    """Keep DEEPEN's MAP, and of every system what is compared, by the name of the system."""
    names = {f"{system}_{evaluations}": system for system, evaluations in COMPARED[problem].items()}
    images = {names.get(name, name): image for name, image in picture.images.items() if name in [*names, "deepen_map"]}
    std = {names[name]: image for name, image in picture.std.items() if name in names}
    return Picture(picture.case, picture.reference, images, std)


def plot_posteriors(study: Study, runs: Path, results: Path) -> None:
    """Draw the posteriors of every problem."""
    for problem in PROBLEMS:
        shown = [compared(picture, problem) for picture in pictures(study, runs / "benchmark", problem, count=2)]
        plot_uncertainty(shown, results / f"posterior_{problem}.png", methods=["deepen_map", *STEPS])


def main() -> None:
    """Write tables and pictures."""
    runs, results = folders_of(__doc__)
    benchmark = runs / "benchmark"
    rows = list(read_results([benchmark / "results.csv"]).itertuples())
    (results / "claim.md").write_text(claim(rows), encoding="utf-8")
    (results / "evaluations.md").write_text(curve(rows), encoding="utf-8")
    plot_evaluations(rows, results / "evaluations.png")
    plot_posteriors(load_study(runs / "study.yaml"), runs, results)
    for name in ("results.csv", "versions.json"):
        shutil.copy(benchmark / name, results / f"benchmark_{name}")


if __name__ == "__main__":
    main()
