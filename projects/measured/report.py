"""Tables and pictures of what `projects.measured.run` has written.

    python -m projects.measured.report runs/measured projects/measured/results

Writes results.csv, tables.md (a table a mask: every slice, and the means of those of several coils) and a picture of
every slice and mask: magnitudes, errors five times as bright, and the standard deviation of the posterior.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas

from direct_deepen.evaluation.classical import CLASSICAL, ZERO_FILLED
from direct_deepen.evaluation.tables import markdown_table, write_csv
from direct_deepen.files import write_text
from direct_deepen.pages.drawing import MOST_UNCERTAIN, blank_figure, brightness_limit, draw_image, write_figure
from projects.reports import folders_of

ERRORS = 5.0
"""How much brighter errors are shown than images."""


def tables(rows: pandas.DataFrame) -> str:
    """Return a table of PSNR a mask, a line a slice, with means over the slices of several coils."""
    parts = []
    for mask, found in rows.groupby("mask", sort=False):
        psnr = found.pivot(index="slice", columns="method", values="psnr")[list(dict.fromkeys(found["method"]))]
        best = psnr[[name for name in CLASSICAL if name in psnr]].max(axis=1)
        coils = found.groupby("slice")["coils"].first()
        lines = [
            {"slice": f"{name} ({coils[name]})", **psnr.loc[name], "best classical": best[name]} for name in psnr.index
        ]
        several = psnr[coils > 1]
        if len(several) > 0:
            lines.append({"slice": "mean, several coils", **several.mean(), "best classical": best[coils > 1].mean()})
        parts += [f"### {mask}\n", markdown_table(lines, dict.fromkeys(lines[0], ".2f"))]
    sampled = rows[rows["coverage_90"].notna()]
    if len(sampled) > 0:
        names = ["slice", "mask", "method", "noise_std", "std", "error", "coverage_90", "flagged"]
        parts += ["### Posteriors\n", markdown_table(sampled[names].to_dict("records"), dict.fromkeys(names, ".3g"))]
    return "\n".join(parts)


def picture(folder: Path, path: Path) -> None:
    """Draw all methods of a slice and a mask: images above, errors below, the deviation at the end."""
    images: dict[str, Any] = {}
    for file in sorted(folder.glob("*.h5")):
        with h5py.File(file, "r") as content:
            images |= {name: np.asarray(image[()]) for name, image in content.items()}
    reference = images.pop("reference")
    deviations = {name: images.pop(name) for name in list(images) if name.endswith("_std")}
    order = [name for name in (ZERO_FILLED, *CLASSICAL) if name in images]
    order += [name for name in images if name not in order]
    limit = brightness_limit([reference], MOST_UNCERTAIN)
    height = 2.2 * reference.shape[0] / reference.shape[1]
    figure = blank_figure(2.2 * (len(order) + 1), 2 * height + 0.5)
    axes = figure.subplots(2, len(order) + 1, squeeze=False)
    draw_image(axes[0, 0], reference, limit)
    axes[0, 0].set_title("reference")
    for column, name in enumerate(order, start=1):
        draw_image(axes[0, column], images[name], limit)
        axes[0, column].set_title(name)
        draw_image(axes[1, column], np.abs(images[name] - reference), limit / ERRORS, "inferno")
    for deviation in deviations.values():
        draw_image(axes[1, 0], deviation, brightness_limit([deviation], MOST_UNCERTAIN), "inferno")
        axes[1, 0].set_title("standard deviation")
    if not deviations:
        axes[1, 0].axis("off")
    write_figure(figure, path)


def main() -> None:
    """Write tables and pictures."""
    output, results = folders_of(__doc__)
    paths = sorted(output.glob("*/*/*.csv"))
    # Classical methods first, as in every table.
    order = {name: number for number, name in enumerate((ZERO_FILLED, *CLASSICAL))}
    paths.sort(
        key=lambda path: (path.parent.name, order.get(path.stem, len(order)), path.stem, path.parent.parent.name)
    )
    rows = pandas.concat([pandas.read_csv(path) for path in paths], ignore_index=True)
    rows = rows[~rows["method"].str.endswith("_std")]
    write_csv(results / "results.csv", rows.to_dict("records"))
    write_text(results / "tables.md", tables(rows))
    for folder in sorted({path.parent for path in paths}):
        picture(folder, results / f"{folder.parent.name}_{folder.name}.png")


if __name__ == "__main__":
    main()
