"""The table of methods on heads, from the benchmark of `projects.heads.run`.

    python -m projects.heads.report runs/heads/table projects/heads/results

Adds the rows of a benchmark to results.csv: trainings take hours, and not all are made at once; the rows of a method
that is there again are replaced. Then writes table.md: PSNR and SSIM of every mask, means over slices and seeds with
the standard deviation over seeds, and how far the weights that come with the package are above.
"""

import argparse
import re
from pathlib import Path

import pandas

from direct_deepen.evaluation.tables import interval_over_volumes, markdown_table, read_results
from direct_deepen.files import write_text
from projects.comparison.run import MASKS
from projects.heads.run import PRETRAINED

COLUMNS = ["method", "mask", "case", "psnr", "ssim", "nmse", "std", "error", "coverage_90", "seconds", "tuned"]


def merged(known: pandas.DataFrame | None, found: pandas.DataFrame) -> pandas.DataFrame:
    """Return the rows of both, of methods in both those that were found."""
    rows = found[COLUMNS]
    if known is not None:
        rows = pandas.concat([known[~known["method"].isin(rows["method"])], rows])
    return rows.sort_values("method", kind="stable")


def table(rows: pandas.DataFrame) -> str:
    """Return a line for every method, its seeds together."""
    rows = rows.assign(system=rows["method"].map(lambda name: re.sub(r"_\d+$", "", name)))
    by_slice = rows.groupby(["system", "mask", "case"])["psnr"].mean()
    best = by_slice[PRETRAINED]
    lines = []
    for system, found in rows.groupby("system", sort=False):
        seeds = found.groupby(["mask", "method"])[["psnr", "ssim"]].mean()
        line: dict[str, object] = {"method": system, "seeds": found["method"].nunique()}
        for mask in MASKS:
            psnr, ssim = seeds.loc[mask]["psnr"], seeds.loc[mask]["ssim"].mean()
            spread = f" ± {psnr.std():.2f}" if len(psnr) > 1 else ""
            line[mask] = f"{psnr.mean():.2f}{spread} / {ssim:.3f}"
        line["mean"] = f"{seeds['psnr'].mean():.2f} / {seeds['ssim'].mean():.3f}"
        mean, half = interval_over_volumes((best - by_slice[system]).groupby("case").mean().to_dict())
        line[f"{PRETRAINED} − method"] = "" if system == PRETRAINED else f"{mean:+.2f} ± {half:.2f}"
        lines.append(line)
    lines.sort(key=lambda line: float(str(line["mean"]).split()[0]))
    return markdown_table(lines)


def main() -> None:
    """Add the rows, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    path = args.output / "results.csv"
    known = pandas.read_csv(path, dtype={"method": str, "mask": str, "case": str}) if path.is_file() else None
    rows = merged(known, read_results([args.benchmark / "results.csv"]))
    args.output.mkdir(parents=True, exist_ok=True)
    write_text(path, rows.to_csv(index=False, float_format="%.6g"))
    write_text(args.output / "table.md", table(rows))


if __name__ == "__main__":
    main()
