"""Turn what run.py wrote into tables: `python projects/quality/report.py runs/quality projects/quality/results`."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from projects.reports import folders_of

METHODS = ("zero_filled", "sense", "l1_wavelet", "deepen_map", "deepen_mmse")


def read(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    """Return a column as numbers."""
    return np.array([float(row[name]) for row in rows])


def quality_table(rows: list[dict[str, str]]) -> str:
    """Return PSNR, SSIM and NMSE of every method on one set, and what the samples tell."""
    lines = ["| method | PSNR (dB) | SSIM | NMSE | DEEPEN MAP is better by (dB) |", "|---|---|---|---|---|"]
    best = column([row for row in rows if row["method"] == "deepen_map"], "psnr")
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        psnr, ssim, nmse = (column(mine, name) for name in ("psnr", "ssim", "nmse"))
        # A paired interval: twice the standard error of the mean difference.
        gain = best - psnr
        paired = "" if method == "deepen_map" else f"{gain.mean():.2f} ± {2 * gain.std(ddof=1) / len(gain) ** 0.5:.2f}"
        lines.append(
            f"| {method} | {psnr.mean():.2f} ± {psnr.std():.2f} | {ssim.mean():.3f} ± {ssim.std():.3f} "
            f"| {nmse.mean():.4f} ± {nmse.std():.4f} | {paired} |"
        )
    mmse = [row for row in rows if row["method"] == "deepen_mmse"]
    weights = ", ".join(
        f"{key.removeprefix('lambda_')} λ = {float(rows[0][key]):.3g}" for key in rows[0] if "lambda" in key
    )
    return (
        "\n".join(lines)
        + f"\n\n{len(mmse)} slices; ± is over slices, in the last column twice the standard error; {weights}. "
        "Posterior: "
        f"standard deviation over error {column(mmse, 'std_over_error').mean():.2f}, their correlation over pixels "
        f"{column(mmse, 'correlation').mean():.2f}, coverage of the 90 % interval "
        f"{column(mmse, 'coverage_90').mean():.2f}.\n"
    )


def sets_table(sets: dict[str, list[dict[str, str]]]) -> str:
    """Return the PSNR of every method on every set."""
    lines = [
        "| set | slices | " + " | ".join(METHODS) + " | std/error |",
        "|---|---|" + "---|" * (len(METHODS) + 1),
    ]
    for name, rows in sets.items():
        cells = [f"{column([r for r in rows if r['method'] == m], 'psnr').mean():.2f}" for m in METHODS]
        mmse = [row for row in rows if row["method"] == "deepen_mmse"]
        ratio = column(mmse, "std_over_error").mean()
        lines.append(f"| {name} | {len(mmse)} | " + " | ".join(cells) + f" | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def agreement_table(rows: list[dict[str, str]]) -> str:
    """Return how chains from noise and from SENSE agree."""
    names = (
        "psnr_sense_start",
        "psnr_sense",
        "psnr_noise",
        "difference",
        "brain_pixels_r_hat_below_1.1",
        "median_r_hat",
    )
    lines = ["| figure | mean | least | largest |", "|---|---|---|---|"]
    for name in names:
        values = column(rows, name)
        lines.append(f"| {name} | {values.mean():.3f} | {values.min():.3f} | {values.max():.3f} |")
    return "\n".join(lines) + "\n"


def steps_table(rows: list[dict[str, str]]) -> str:
    """Return quality against the number of steps."""
    lines = [
        "| start | steps | one sample (dB) | mean of last states (dB) | mean of last half (dB) | C |",
        "|---|---|---|---|---|---|",
    ]
    for start, steps in dict.fromkeys((row["start"], row["steps"]) for row in rows):
        mine = [row for row in rows if (row["start"], row["steps"]) == (start, steps)]
        cells = [
            f"{column(mine, name).mean():.2f}"
            for name in ("psnr_one_sample", "psnr_mean_of_last_states", "psnr_mean_of_last_half", "cost")
        ]
        lines.append(f"| {start} | {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def map_table(rows: list[dict[str, str]]) -> str:
    """Return the gradients that MAP needs."""
    lines = [
        f"| iteration | ∇E to (C − C*)/C* ≤ 1e-6, mean | largest | slices that got there of {len(rows)} |",
        "|---|---|---|---|",
    ]
    titles = {
        "fixed_L": f"majorize-minimize, L = {float(rows[0]['fixed_L']):.3g}",
        "adapting_L": "majorize-minimize, adapting L (`memory=0`)",
        "memory": "with memory (`memory=5`, the default)",
    }
    for name, title in titles.items():
        evaluations = column(rows, f"evaluations_{name}")
        reached = sum(row[f"reached_{name}"] == "True" for row in rows)
        lines.append(f"| {title} | {evaluations.mean():.0f} | {evaluations.max():.0f} | {reached} |")
    return "\n".join(lines) + f"\n\nPSNR at the minimum: {column(rows, 'psnr_of_the_minimum').mean():.2f} dB.\n"


def stopping_table(rows: list[dict[str, str]]) -> str:
    """Return where the default stopping rule ends."""
    evaluations, ratio = column(rows, "evaluations"), column(rows, "gradient_norm_ratio")
    monotone = sum(row["monotone"] == "True" for row in rows)
    return (
        "| ∇E, mean | largest | ‖∇C‖ over that at SENSE, mean | largest | monotone | PSNR (dB) |\n"
        "|---|---|---|---|---|---|\n"
        f"| {evaluations.mean():.0f} | {evaluations.max():.0f} | {ratio.mean():.1e} | {ratio.max():.1e} "
        f"| {monotone} of {len(rows)} | {column(rows, 'psnr').mean():.2f} |\n"
    )


def curvature_table(rows: list[dict[str, str]]) -> str:
    """Return difference quotients over the Hessian's largest eigenvalue."""
    lines = ["| at | largest eigenvalue | 5 | 10 | 50 difference quotients, over it |", "|---|---|---|---|---|"]
    for where in dict.fromkeys(row["where"] for row in rows):
        mine = [row for row in rows if row["where"] == where]
        exact = column(mine, "hessian")
        cells = [f"{(column(mine, f'difference_quotient_{n}') / exact).mean():.2f}" for n in (5, 10, 50)]
        lines.append(f"| {where} | {exact.mean():.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write all tables there are figures for."""
    output, results = folders_of(__doc__)
    files = sorted((output / "cases").glob("*.csv"), key=lambda path: path.stat().st_mtime)
    sets = {rows[0]["set"]: rows for rows in map(read, files)}
    tables = {"quality": quality_table(next(iter(sets.values()))), "sets": sets_table(sets)}
    parts: dict[str, Callable[[list[dict[str, str]]], str]] = {
        "agreement": agreement_table,
        "agreement_preconditioned": agreement_table,
        "steps": steps_table,
        "steps_preconditioned": steps_table,
        "map": map_table,
        "stopping": stopping_table,
        "curvature": curvature_table,
    }
    for name, make in parts.items():
        if (output / f"{name}.csv").exists():
            tables[name] = make(read(output / f"{name}.csv"))
            shutil.copy(output / f"{name}.csv", results)
    for file in files:
        shutil.copy(file, results)
    for name, table in tables.items():
        (results / f"{name}.md").write_text(table, encoding="utf-8")
        print(table)


if __name__ == "__main__":
    main()
