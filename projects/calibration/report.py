"""The tables of what `projects.calibration.run` has written: before and after, by set of data and mask.

    python -m projects.calibration.report runs/calibration projects/calibration/results

Writes results.csv, a row a slice, seed, stage and size of block, rings.csv, tables.md, and the picture of every set
with the mask 2d4x and the first seed.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas

from direct_deepen.evaluation.calibration_study import AFTER, BLOCKS, CLEAN, OBJECT
from direct_deepen.evaluation.tables import interval_over_volumes, markdown_table, write_csv
from direct_deepen.files import write_text
from projects.reports import folders_of

_KEY = ["set", "mask", "stage"]
_COLUMNS = [*_KEY, "seed", "case", "pixels", "coverage_90", "spearman", "spearman_ceiling", "spread_over_error"]


def read(folder: Path, name: str) -> pandas.DataFrame:
    """Return a table of all calibrations, with the set, mask and seed that they are of."""
    found = []
    for path in sorted(folder.glob(f"*/*/seed_*/{name}.csv")):
        group, mask, seed = path.parts[-4:-1]
        found.append(pandas.read_csv(path).assign(set=group, mask=mask, seed=int(seed.removeprefix("seed_"))))
    return pandas.concat(found, ignore_index=True)


def coverage_rows(cases: pandas.DataFrame) -> list[dict[str, Any]]:
    """Return coverage of 90 % intervals by size of block, in per cent; ± is over volumes, of means over seeds."""

    def cell(found: pandas.DataFrame) -> str:
        shares = found.groupby("case")["coverage_90"].mean()
        mean, half = interval_over_volumes({case: 100 * share for case, share in shares.items()})
        return f"{mean:.1f} ± {half:.1f}"

    return _by_block(cases, cell)


def correlation_rows(cases: pandas.DataFrame) -> list[dict[str, Any]]:
    """Return Spearman's correlation of deviation and error by size of block, and the highest of such deviations."""
    return _by_block(cases, lambda f: f"{f['spearman'].mean():.2f} of {f['spearman_ceiling'].mean():.2f}")


def _by_block(cases: pandas.DataFrame, cell: Callable[[pandas.DataFrame], str]) -> list[dict[str, Any]]:
    """Return a row for every set, mask and stage, with a cell for every size of block."""
    rows = []
    for key, found in cases.groupby(_KEY, sort=False):
        row: dict[str, Any] = _named(key) | {"slices": found["case"].nunique()}
        for pixels in (OBJECT, *BLOCKS):
            row["pixel" if pixels == OBJECT else pixels] = cell(found[found["pixels"] == pixels])
        rows.append(row)
    return rows


def ring_rows(rings: pandas.DataFrame) -> list[dict[str, Any]]:
    """Return power of the error over that of samples by ring, summed over slices and seeds."""
    rows = []
    for key, found in rings.groupby(_KEY, sort=False):
        sums = found.groupby("ring")[["error", "predicted"]].sum()
        ratios = sums["error"] / sums["predicted"]
        rows.append(_named(key) | {f"to {ring:.3g}": f"{ratio:.2f}" for ring, ratio in ratios.items()})
    return rows


def _named(key: Any) -> dict[str, Any]:
    name, mask, stage = key
    return {"set": name, "mask": mask, "factors": "fitted" if stage == AFTER else "none"}


def main() -> None:
    """Write the tables."""
    runs, results = folders_of(__doc__)
    cases, rings = read(runs, "cases"), read(runs, "rings")
    cases = cases[(cases["reference"] == CLEAN) & cases["pixels"].isin((OBJECT, *BLOCKS))]
    write_csv(results / "results.csv", cases[_COLUMNS].to_dict("records"))
    write_csv(results / "rings.csv", rings.to_dict("records"))
    parts = ["### Coverage of 90 % intervals, per cent\n", markdown_table(coverage_rows(cases))]
    parts += ["### Spearman's correlation of deviation and error\n", markdown_table(correlation_rows(cases))]
    for name, found in rings.groupby("set", sort=False):
        parts += [f"### Power of the error over that of samples, by ring: {name}\n", markdown_table(ring_rows(found))]
    write_text(results / "tables.md", "\n".join(parts))
    for picture in sorted(runs.glob("*/2d4x/seed_0/calibration.png")):
        shutil.copyfile(picture, results / f"{picture.parts[-4]}_2d4x.png")
    print("\n".join(parts))


if __name__ == "__main__":
    main()
