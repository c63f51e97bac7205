"""Table and pictures of what `projects.trajectories.run` has written.

python -m projects.trajectories.report runs/trajectories projects/trajectories/results
"""

import argparse
from pathlib import Path

import pandas

from direct_deepen.evaluation.tables import markdown_table, write_csv
from direct_deepen.files import write_text
from projects.measured.report import picture


def table(rows: pandas.DataFrame) -> str:
    """Return a line a slice, and the mean: PSNR and SSIM of every method."""
    lines = []
    for volume, found in rows.groupby("volume", sort=False):
        lines.append({"slice": volume} | {row.method: f"{row.psnr:.2f} ({row.ssim:.3f})" for row in found.itertuples()})
    means = rows.groupby("method", sort=False)[["psnr", "ssim"]].mean()
    lines.append({"slice": "mean"} | {row.Index: f"{row.psnr:.2f} ({row.ssim:.3f})" for row in means.itertuples()})
    return markdown_table(lines, dict.fromkeys(lines[0], "s"))


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    rows = pandas.read_csv(args.output / "results.csv")
    args.results.mkdir(parents=True, exist_ok=True)
    write_csv(args.results / "results.csv", rows.to_dict("records"))
    write_text(args.results / "table.md", table(rows))
    for file in sorted(args.output.glob("*/images.h5")):
        picture(file.parent, args.results / f"{file.parent.name}.png")


if __name__ == "__main__":
    main()
