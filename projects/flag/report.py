"""Tables and a picture of what `projects.flag.run` has written.

    python -m projects.flag.report runs/flag projects/flag/results

Writes results.csv, every slice with its figures; tables.md: false alarms, and by trouble the area under the curve of
the best figure and of the flag, shares found at the limits and which limits are exceeded; and roc.png. "Own range" is
with a limit of the energy by the good slices that limits were chosen on, in the place of the one that is shipped.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas

from direct_deepen.evaluation.tables import markdown_table, write_csv
from direct_deepen.files import write_text
from direct_deepen.pages.drawing import blank_figure, write_figure
from direct_deepen.posterior.misfit import LIMITS
from projects.flag.troubles import GOOD, TROUBLES
from projects.reports import folders_of

CHOSEN_ON = {"phantoms": 8, "heads": 24}
"""Slices from 0 that limits were chosen on, by set; of others none."""
FIGURES = [name for name in LIMITS if name != "outside_band"]
"""Masks here reach the edges of k-space."""


def scores(rows: pandas.DataFrame, limits: Mapping[str, float] = LIMITS) -> pandas.Series:
    """Return the largest figure of every slice over its limit: the flag is up above one."""
    return (rows[FIGURES] / pandas.Series(dict(limits))[FIGURES]).max(axis=1)


def is_chosen(rows: pandas.DataFrame) -> pandas.Series:
    """Return which rows are of slices that limits were chosen on."""
    return rows["number"] < rows["set"].map(lambda name: CHOSEN_ON.get(name, 0))


def own_limits(rows: pandas.DataFrame) -> Mapping[str, float]:
    """Return the limits with that of the energy by good slices, as checkpoints have it by the images of training."""
    good = rows[(rows["trouble"] == GOOD) & is_chosen(rows)]["unlike_training"]
    if len(good) == 0:
        return LIMITS
    return LIMITS | {"unlike_training": max(float(good.mean() + 5 * good.std()), 2 * float(good.mean()))}


def area(good: np.ndarray, bad: np.ndarray) -> float:
    """Return the share of pairs in which the bad one is larger, equal ones by half: the area under the curve."""
    return float(((bad[:, None] > good).mean() + (bad[:, None] >= good).mean()) / 2)


def by_trouble(rows: pandas.DataFrame) -> list[dict[str, object]]:
    """Return a line for every trouble: what finds it, how surely, and what it does to the image."""
    rows = rows.assign(flag=scores(rows), own=scores(rows, own_limits(rows)))
    good, lines = rows[rows["trouble"] == GOOD], []
    for trouble in TROUBLES:
        bad = rows[rows["trouble"] == trouble]
        if len(bad) == 0:
            continue
        areas = {name: area(good[name].to_numpy(), bad[name].to_numpy()) for name in FIGURES}
        best = max(areas, key=lambda name: areas[name])
        unharmed = good.set_index("number")["psnr"].loc[bad["number"]].to_numpy()
        exceeded = (bad[FIGURES] > pandas.Series(LIMITS)[FIGURES]).mean()
        told = [f"{name} {share:.0%}" for name, share in exceeded[exceeded > 0].sort_values(ascending=False).items()]
        lines.append(
            {
                "trouble": trouble,
                "slices": str(len(bad)),
                "best figure": best,
                "its area": areas[best],
                "area of the flag": area(good["flag"].to_numpy(), bad["flag"].to_numpy()),
                "own range": area(good["own"].to_numpy(), bad["own"].to_numpy()),
                "flagged": f"{(bad['flag'] > 1).mean():.0%}",
                "flagged, own range": f"{(bad['own'] > 1).mean():.0%}",
                "limits exceeded": ", ".join(told) or "none",
                "dB lost": float((unharmed - bad["psnr"]).mean()),
            }
        )
    return lines


def of_good(rows: pandas.DataFrame) -> list[dict[str, object]]:
    """Return a line for every set and mask of good slices: flags, and the largest of every figure."""
    lines = []
    for (name, mask), found in rows[rows["trouble"] == GOOD].groupby(["set", "mask"], sort=False):
        limits = own_limits(found)
        for told, part in (
            ("chosen on", found[is_chosen(found)]),
            ("others", found[~is_chosen(found)]),
        ):
            if len(part) == 0:
                continue
            flagged = f"{int((scores(part) > 1).sum())} of {len(part)}"
            own = f"{int((scores(part, limits) > 1).sum())} of {len(part)}"
            line: dict[str, object] = {"set": name, "mask": mask, "slices": told, "flagged": flagged}
            line |= {"flagged, own range": own, "dB": float(part["psnr"].mean())}
            lines.append(line | {figure: float(part[figure].max()) for figure in FIGURES})
    return lines


def picture(rows: pandas.DataFrame, path: Path) -> None:
    """Draw the flag's score of every trouble, a panel a set and mask: limits are at one."""
    troubled = rows[rows["set"].isin(rows[rows["trouble"] != GOOD]["set"])]
    groups = list(troubled.assign(flag=scores(troubled)).groupby(["set", "mask"], sort=False))
    figure = blank_figure(5.5 * len(groups), 4.8)
    for number, ((name, mask), found) in enumerate(groups, start=1):
        axes = figure.add_subplot(1, len(groups), number)
        for place, trouble in enumerate([GOOD, *TROUBLES]):
            values = found[found["trouble"] == trouble]["flag"].to_numpy()
            colour = "tab:blue" if trouble == GOOD else "tab:orange"
            axes.plot(values, np.full(len(values), -place), "|", color=colour, markersize=9)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(xscale="log", title=f"{name}, {mask}", xlabel="largest figure over its limit")
        axes.set_yticks(-np.arange(len(TROUBLES) + 1), [GOOD, *TROUBLES] if number == 1 else [""] * (len(TROUBLES) + 1))
    write_figure(figure, path)


def main() -> None:
    """Write tables and picture."""
    output, results = folders_of(__doc__)
    parts = []
    for path in sorted(output.glob("*/*/figures.csv"), reverse=True):
        rows = pandas.read_csv(path)
        rows.insert(0, "set", path.parent.parent.name)
        rows.insert(1, "mask", path.parent.name)
        parts.append(rows)
    rows = pandas.concat(parts)
    write_csv(results / "results.csv", rows.to_dict("records"))
    good = of_good(rows)
    text = ["### Without trouble\n", markdown_table(good, dict.fromkeys(["dB", *FIGURES], ".3g"))]
    for (name, mask), found in rows.groupby(["set", "mask"], sort=False):
        lines = by_trouble(found)
        if not lines:
            continue
        formats = {"its area": ".3f", "area of the flag": ".3f", "own range": ".3f", "dB lost": ".1f"}
        text += [f"### {name}, {mask}\n", markdown_table(lines, formats)]
    write_text(results / "tables.md", "\n".join(text))
    print("\n".join(text))
    picture(rows, results / "roc.png")


if __name__ == "__main__":
    main()
