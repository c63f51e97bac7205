"""Tables: rows as CSV and as Markdown, and what the rows of a benchmark come to.

Columns of results.csv, a row for every image of every method on every slice of every problem:

=========================================== ==========================================================================
``method``, ``mask``, ``case``              names of the method, the problem and the slice, ``<volume>#<slice>``
``psnr``, ``ssim``, ``nmse``                :class:`~direct_deepen.evaluation.metrics.Quality`
``seconds``, ``gradient_evaluations``       of the reconstruction, transforms excluded; evaluations of ∇E, or of the
                                            network where there is no energy
``num_samples``, ``num_chains``,            samples of the posterior, and the chains or independent samples they are of;
``sample_seconds``, ``sample_evaluations``  seconds and evaluations of one of these
``std``, ``error``, ``coverage_90``,        :class:`~direct_deepen.evaluation.metrics.PosteriorQuality`, in scaled
``std_everywhere``, ``error_everywhere``    intensities
``peak_memory_mb``                          growth of the peak of memory since the model was loaded, over the whole run,
                                            the data of a slice included: resident memory on the CPU, the allocator's on
                                            a GPU; not a number for predictions
``parameters``, ``seed``                    number of weights; seed of the study
``tuned``                                   what was chosen on validation data; not a number where nothing was
=========================================== ==========================================================================
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from direct_deepen.errors import DeepenError, first_line, optional_import
from direct_deepen.files import write_text

type Frame = Any
"""A ``pandas.DataFrame``; pandas comes with the extra ``evaluation``."""

# ---- Files


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, at least one, all with the keys of the first; a reader never finds half a file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())


def read_results(paths: Iterable[Path]) -> Frame:
    """Read files of such rows, one after another, into one frame."""
    with optional_import("evaluation", "the tables of a benchmark need pandas"):
        import pandas  # type: ignore[import-untyped]
    names = dict.fromkeys(("method", "mask", "case"), str)
    frames = []
    for path in paths:
        try:
            frames.append(pandas.read_csv(path, dtype=names))
        except (ValueError, pandas.errors.ParserError) as error:
            raise DeepenError(f"{path}: no table of results: {first_line(error)}") from error
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()


def markdown_table(rows: Sequence[Mapping[str, Any]], formats: Mapping[str, str] | None = None) -> str:
    """Return rows, at least one, as a table in Markdown whose columns are those of the first row.

    ``formats`` are those of the numbers, as :func:`format` has them, by column; what is not a number is left blank.
    """

    def cell(title: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        return "" if value is None or np.isnan(value) else format(value, (formats or {}).get(title, ""))

    titles = list(rows[0])
    lines = [titles, ["---"] * len(titles), *([cell(title, row[title]) for title in titles] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# ---- Benchmarks

_MEANS = {
    "num_samples": "samples", "sample_seconds": "seconds a sample", "sample_evaluations": "evaluations a sample",
    "std": "standard deviation", "error": "error of the mean", "coverage_90": "coverage of 90 %",
}  # fmt: skip
_FORMATS = {
    "seconds a slice": ".3g", "evaluations": ".0f", "memory (MB)": ".0f", "parameters": ",.0f", "tuned": ".3g",
    "samples": ".0f", "seconds a sample": ".3g", "evaluations a sample": ".0f", "standard deviation": ".4f",
    "error of the mean": ".4f", "coverage of 90 %": ".1%",
}  # fmt: skip


def results_table(results: Frame, reference: str) -> str:
    """Return the tables of all problems in Markdown; paired differences are taken to the row ``reference``."""
    parts = []
    for problem, found in results.groupby("mask", sort=False):
        parts += [
            f"### {problem}\n",
            markdown_table(quality_rows(found, reference), _FORMATS),
            f"{found['case'].nunique()} slices, PSNR by the maximum of each; ± over slices, in the fifth column the "
            "95 % interval of the mean difference over volumes.\n",
        ]
        sampled = found[found["num_samples"].notna()].groupby("method", sort=False)
        if len(sampled) > 0:
            means = sampled[list(_MEANS)].mean().rename(columns=_MEANS).reset_index(names="posterior")
            ratios = sampled["std_everywhere"].sum() / sampled["error_everywhere"].sum()
            parts += [
                markdown_table(means.to_dict("records"), _FORMATS),
                "Means over the pixels of the object and over slices, in scaled intensities.\n",
                "Mean standard deviation over mean absolute error of all pixels: "
                f"{', '.join(f'{ratio:.2f} of {name}' for name, ratio in ratios.items())} "
                "(1.25 for Gaussian errors of just that standard deviation).\n",
            ]
    return "\n".join(parts)


def quality_rows(results: Frame, reference: str) -> list[dict[str, Any]]:
    """Return a row for every method of one problem; ± is the standard deviation over slices."""
    psnr = results.pivot(index="case", columns="method", values="psnr")
    rows = []
    for name, found in results.groupby("method", sort=False):
        paired = ""
        if name != reference and reference in psnr:
            paired = "{:+.2f} ± {:.2f}".format(*interval_over_volumes((psnr[reference] - psnr[name]).to_dict()))
        rows.append(
            {
                "method": name,
                "PSNR (dB)": _plus_minus(found["psnr"], ".2f"),
                "SSIM": _plus_minus(found["ssim"], ".3f"),
                "NMSE": _plus_minus(found["nmse"], ".4f"),
                f"{reference} − method (dB)": paired,
                "seconds a slice": found["seconds"].mean(),
                "evaluations": found["gradient_evaluations"].mean(),
                "memory (MB)": found["peak_memory_mb"].iloc[0],
                "parameters": found["parameters"].iloc[0],
                "tuned": found["tuned"].iloc[0],
            }
        )
    return rows


def _plus_minus(values: Any, form: str) -> str:
    # An image without an error has an infinite PSNR, and infinite numbers have no standard deviation.
    with np.errstate(invalid="ignore"):
        return f"{values.mean():{form}} ± {values.std(ddof=0):{form}}"


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
