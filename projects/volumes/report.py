"""Tables and a picture of what `projects.volumes.run` has written.

python -m projects.volumes.report runs/volumes projects/volumes/results
"""

from pathlib import Path

import h5py
import numpy as np
import pandas

from direct_deepen.evaluation.tables import markdown_table, write_csv
from direct_deepen.files import write_text
from direct_deepen.pages.drawing import MOST_UNCERTAIN, blank_figure, brightness_limit, draw_image, write_figure
from projects.reports import folders_of

ERRORS = 5.0
"""How much brighter errors are shown than images."""


def table(rows: pandas.DataFrame) -> str:
    """Return a line a method: the number that was tuned, PSNR of every series, their mean, mean SSIM and seconds."""
    lines = []
    for method, found in rows.groupby("method", sort=False):
        psnr = {f"series {number}": value for number, value in zip(found["series"], found["psnr"], strict=True)}
        means = found[["psnr", "ssim", "seconds"]].mean()
        lines.append({"method": method, "tuned": found["choice"].iloc[0]} | psnr | dict(means))
    formats = dict.fromkeys(lines[0], ".2f") | {"method": "s", "tuned": ".3g", "ssim": ".3f", "seconds": ".0f"}
    return markdown_table(lines, formats)


def picture(file: Path, path: Path) -> None:
    """Draw the first frame of every method with its error, and below one column of the image over time."""
    with h5py.File(file, "r") as content:
        series = {name: np.asarray(image[()]) for name, image in content.items()}
    reference = series.pop("reference")
    # HDF5 has names in alphabetical order.
    names = ["reference", *(name for name in ("sense", "temporal_tv", "map_frame_by_frame", "map_over_time"))]
    series["reference"], limit = reference, brightness_limit([reference], MOST_UNCERTAIN)
    figure = blank_figure(2.2 * len(names), 5.6)
    axes = figure.subplots(3, len(names), squeeze=False, height_ratios=[1, 1, 0.4])
    for column, name in enumerate(names):
        draw_image(axes[0, column], series[name][0], limit)
        axes[0, column].set_title(name.replace("_", " "))
        draw_image(axes[1, column], np.abs(series[name] - reference)[0], limit / ERRORS, "inferno")
        draw_image(axes[2, column], series[name][:, :, reference.shape[-1] // 2], limit)
    write_figure(figure, path)


def main() -> None:
    """Write them."""
    output, results = folders_of(__doc__)
    rows, noise = (pandas.read_csv(output / name) for name in ("results.csv", "denoising.csv"))
    for name, found in (("results.csv", rows), ("denoising.csv", noise)):
        write_csv(results / name, found.to_dict("records"))
    columns = dict.fromkeys(noise.columns, ".2f") | {"method": "s"}
    write_text(results / "table.md", "\n".join([table(rows), markdown_table(noise.to_dict("records"), columns)]))
    picture(output / "series_0.h5", results / "series.png")


if __name__ == "__main__":
    main()
