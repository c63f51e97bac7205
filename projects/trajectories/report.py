"""Table and pictures of what `projects.trajectories.run` has written.

python -m projects.trajectories.report runs/trajectories projects/trajectories/results
"""

import pandas

from direct_deepen.evaluation.tables import markdown_table, write_csv
from direct_deepen.files import write_text
from projects.measured.report import picture
from projects.reports import folders_of


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
    output, results = folders_of(__doc__)
    rows = pandas.read_csv(output / "results.csv")
    write_csv(results / "results.csv", rows.to_dict("records"))
    write_text(results / "table.md", table(rows))
    for file in sorted(output.glob("*/images.h5")):
        picture(file.parent, results / f"{file.parent.name}.png")


if __name__ == "__main__":
    main()
