"""The regions of a label map as rows of a table, slice by slice and over the volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from direct_deepen.errors import require
from direct_deepen.posterior.region import Region, pooled
from direct_deepen.posterior.saved_samples import SavedSamples
from direct_deepen.progress import progress_bar

VOLUME = "all"
"""What stands for the slice of rows over several."""

type Row = dict[str, str | int | float | None]
"""A row by the names of its columns."""


@dataclass(frozen=True)
class _Part:
    """What one label has of a slice, or of several."""

    region: Region
    pixels: int


def region_rows(
    samples: SavedSamples, labels: np.ndarray, *, level: float, numbers: Sequence[int], relative_to: int | None = None
) -> list[Row]:
    """Return a row for every label above zero of every slice that has it, and of all slices where several have one.

    Parameters
    ----------
    samples
        Of an open file; one slice is read at a time.
    labels
        Integers (slice, row, column).
    level
        Of the interval from ``lower`` to ``upper``, which counts chains.
    numbers
        Slices that are looked at, from 0; rows count from 1.
    relative_to
        Label to whose region of the same slices ``difference`` and ``ratio`` are taken, sample by sample. They are None
        where it has no pixel, and a ratio where that region is not above zero in every sample.

    Raises
    ------
    DeepenError
        For a label without a pixel in these slices, another level, and samples of one chain.
    """
    found = np.unique(labels[list(numbers)]).tolist()
    wanted = [label for label in found if label > 0]
    require(len(wanted) > 0, f"the mask is 0 in slice {numbers[0] + 1}; allowed: a slice with a label above 0")
    told = ", ".join(map(str, wanted))
    require(relative_to in (None, *wanted), f"--relative-to is {relative_to}; allowed: a label of the mask, {told}")
    rows, volume = list[Row](), dict[int, list[_Part]]()
    for number in progress_bar(numbers, name="regions", unit="slice"):
        here = [label for label in np.unique(labels[number]).tolist() if label > 0]
        if not here:
            continue
        posterior = samples.posterior(number)
        masks = {label: labels[number] == label for label in here}
        parts = {label: _Part(posterior.region(mask), int(mask.sum())) for label, mask in masks.items()}
        rows += _rows(number + 1, parts, level, relative_to)
        for label, part in parts.items():
            volume.setdefault(label, []).append(part)
    if len(numbers) > 1:
        whole = {label: _whole(parts) for label, parts in sorted(volume.items())}
        rows += _rows(VOLUME, whole, level, relative_to)
    return rows


def _whole(parts: Sequence[_Part]) -> _Part:
    sizes = [part.pixels for part in parts]
    return _Part(pooled([part.region for part in parts], sizes), sum(sizes))


def _rows(number: int | str, parts: dict[int, _Part], level: float, relative_to: int | None) -> list[Row]:
    other = None if relative_to is None else parts.get(relative_to)
    rows = []
    for label, part in parts.items():
        region = part.region
        row: Row = {"slice": number, "label": label, "pixels": part.pixels, "mean": float(region.mean)}
        row |= {"std": float(region.std), **_ends("", region, level)}
        if relative_to is not None:
            row |= _compared("difference", None if other is None else region - other.region, level)
            divides = other is not None and bool((other.region.values > 0).all())
            row |= _compared("ratio", region / other.region if other is not None and divides else None, level)
        rows.append(row)
    return rows


def _compared(name: str, region: Region | None, level: float) -> Row:
    if region is None:
        return dict.fromkeys((name, f"{name}_lower", f"{name}_upper"))
    return {name: float(region.mean), **_ends(f"{name}_", region, level)}


def _ends(prefix: str, region: Region, level: float) -> dict[str, Any]:
    lower, upper = region.interval(level)
    return {f"{prefix}lower": float(lower), f"{prefix}upper": float(upper)}
