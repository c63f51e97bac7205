"""The tables and the picture of what `projects.certified.run` has written.

    python -m projects.certified.report projects/certified/results

Writes tables.md and samplers.png beside the results.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas
from matplotlib.figure import Figure

from direct_deepen.evaluation.tables import markdown_table
from direct_deepen.files import write_text

PRIORS = ("boxes", "wavelets")


def sampler_rows(results: pandas.DataFrame) -> list[dict[str, Any]]:
    """Return a row for every sampler: mean, deviations, CRPS and coverage."""
    return [
        {
            "sampler": row["sampler"],
            "evaluations a sample": f"{row['evaluations']:.0f}",
            "gap of the mean (decibels)": _measured(row, "gap", ".2f"),
            "deviation (%)": _measured(row, "deviation_pixels", "+.1f"),
            "CRPS (%)": _measured(row, "crps_excess", "+.1f"),
            "regions 50 / 90 / 95 %": _three(row, "region"),
            "intervals 50 / 90 / 95 %": _three(row, "interval"),
        }
        for _, row in results.iterrows()
    ]


def step_rows(steps: pandas.DataFrame) -> list[dict[str, Any]]:
    """Return a row for every step size, of chains that start from the posterior: errors of deviations."""
    return [
        {
            "τ": f"adapts ({row['step_size']:.2f})" if row["step"] == "adapts" else f"{row['step_size']:g}",
            "noise": "averaged" if row["averaged_noise"] else "own",
            "pixels (%)": _measured(row, "deviation_pixels", "+.1f"),
            "measured (%)": _measured(row, "deviation_measured", "+.1f"),
            "not measured (%)": _measured(row, "deviation_not_measured", "+.1f"),
            "regions 50 / 90 / 95 %": _three(row, "region"),
        }
        for _, row in steps.iterrows()
    ]


def _measured(row: Any, name: str, form: str) -> str:
    return f"{row[name]:{form}} ± {row[f'{name}_se']:{form.lstrip('+')}}"


def _three(row: Any, name: str) -> str:
    return " / ".join(f"{row[f'{name}_{level}']:.0f}" for level in (50, 90, 95))


def read(results: Path, name: str) -> pandas.DataFrame:
    """Return a table of results, steps as they were named."""
    return pandas.read_csv(results / f"{name}.csv", dtype={"step": str})


def tables(results: Path) -> str:
    """Return all tables in Markdown."""
    parts = []
    for prior in PRIORS:
        parts += [f"### {prior}\n", markdown_table(sampler_rows(read(results, prior)))]
        parts += [f"### {prior}: steps alone\n", markdown_table(step_rows(read(results, f"{prior}_steps")))]
    return "\n".join(parts)


def plot(results: Path) -> None:
    """Draw deviations and coverage of regions of every sampler, with two standard errors."""
    frames = {prior: read(results, prior) for prior in PRIORS}
    names = list(frames[PRIORS[0]]["sampler"].str.replace(r", ζ = [\d.]+", "", regex=True))
    figure = Figure(figsize=(9, 0.24 * len(names) + 1), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("error of the deviation (%)", "truth in the 90 % region (%)")
    for axes, column, expected, title in zip(panels, ("deviation_pixels", "region_90"), (0, 90), titles, strict=True):
        for prior, marker in zip(PRIORS, "os", strict=True):
            found = frames[prior]
            axes.errorbar(
                found[column], range(len(names)), xerr=2 * found[f"{column}_se"], fmt=marker, ms=4, lw=1, label=prior
            )
        axes.axvline(expected, color="0.5", lw=0.8)
        axes.set_xlabel(title)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names, fontsize=7)
    panels[0].invert_yaxis()
    panels[0].legend(fontsize=7)
    figure.savefig(results / "samplers.png", dpi=130)


def main() -> None:
    """Write the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    write_text(args.results / "tables.md", tables(args.results))
    plot(args.results)
    print(tables(args.results))


if __name__ == "__main__":
    main()
