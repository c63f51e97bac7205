"""Samples as a page holds them, from which it takes the mean of any rectangle and how sure that is."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from direct_deepen.posterior.intervals import predictive_interval
from direct_deepen.posterior.posterior_file import open_output
from direct_deepen.posterior.saved_samples import SavedSamples, open_samples
from direct_deepen.progress import progress_bar

LEVEL = 0.9
"""Of the intervals of a page."""

MOST_SAMPLES = 64
MOST_CHARACTERS = 24_000_000
"""That the samples of a page may take; the rest of 30 MB is for its images."""

_LARGEST = 2**15 - 1


@dataclass(frozen=True)
class SampleSlice:
    """A slice: |Ex| of blocks of pixels, and by how much each sample of their u differs from it."""

    mean: np.ndarray
    """Float32 (row, column)."""
    deviations: np.ndarray
    """16-bit integers (sample, row, column), in steps."""
    step: float


@dataclass(frozen=True)
class RegionSamples:
    """Samples of all slices, means over blocks of pixels, of which those at the last row and column may be cut."""

    slices: list[SampleSlice]
    rows: int
    columns: int
    block: int
    """Rows, and columns, of a block."""
    num_chains: int
    """That an interval counts."""
    note: str
    """What was left out to keep the page small; empty where nothing was."""

    def content(self) -> dict[str, Any]:
        """Return what the script of a page reads: numbers, and arrays as bytes, the lowest first, in base64."""
        zero, one = torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        return {
            "rows": self.rows,
            "columns": self.columns,
            "block": self.block,
            "level": f"{100 * LEVEL:g} %",
            "factor": float(predictive_interval(zero, one, LEVEL, num_chains=self.num_chains)[1]),
            "slices": [
                {"mean": _text(part.mean, "<f4"), "deviations": _text(part.deviations, "<i2"), "step": part.step}
                for part in self.slices
            ],
        }


def read_region_samples(path: Path) -> RegionSamples | None:
    """Return the samples of a posterior file for a page; None where it holds none, or of less than two chains.

    Of each chain so many states are taken, equally spaced, that there are :data:`MOST_SAMPLES` at most, and pixels are
    binned to the smallest blocks of which there is room for all slices in :data:`MOST_CHARACTERS`.
    """
    with open_output(path) as file:
        if "samples" not in file or int(file.attrs.get("num_samples", 0)) < 2:
            return None
    with open_samples(path) as samples:
        slices, rows, columns = samples.shape
        chosen = _chosen(samples)
        block = next(n for n in range(1, rows + columns) if _characters(samples, len(chosen), n) <= MOST_CHARACTERS)
        saved, notes = samples.dataset.shape[1], list[str]()
        if len(chosen) < saved:
            notes.append(f"{len(chosen)} of {saved} samples")
        if block > 1:
            notes.append(f"blocks of {block}×{block} pixels")
        numbers = progress_bar(range(slices), name="regions", unit="slice")
        found = [_slice(samples, number, chosen, block) for number in numbers]
        return RegionSamples(found, rows, columns, block, min(samples.num_chains, len(chosen)), ", ".join(notes))


def _chosen(samples: SavedSamples) -> np.ndarray:
    """Return the numbers of the samples that are taken, equally many of each chain."""
    chains, saved = samples.num_chains, samples.dataset.shape[1]
    keep = saved // chains
    of_chains = np.linspace(0, chains - 1, min(chains, MOST_SAMPLES)).round().astype(int)
    of_states = np.linspace(0, keep - 1, min(keep, max(1, MOST_SAMPLES // chains))).round().astype(int)
    return (of_chains[:, None] * keep + of_states).ravel()


def _characters(samples: SavedSamples, count: int, block: int) -> int:
    slices, rows, columns = samples.shape
    return slices * count * -(-rows // block) * -(-columns // block) * 2 * 4 // 3


def _slice(samples: SavedSamples, number: int, chosen: np.ndarray, block: int) -> SampleSlice:
    posterior = samples.posterior(number)
    mean = posterior.mean.abs()
    deviations = _binned((posterior.in_phase(posterior.images[chosen]) - mean)[:, 0].numpy(), block)
    largest = float(np.abs(deviations).max())
    step = largest / _LARGEST if largest > 0 else 1.0
    return SampleSlice(
        _binned(mean[0].numpy(), block).astype(np.float32), np.rint(deviations / step).astype(np.int16), step
    )


def _binned(images: np.ndarray, block: int) -> np.ndarray:
    """Return the means over blocks of images (..., row, column), float64."""
    sums = images.astype(np.float64)
    for axis in (-2, -1):
        starts = np.arange(0, images.shape[axis], block)
        lengths = np.diff([*starts, images.shape[axis]]).reshape((-1, 1) if axis == -2 else -1)
        sums = np.add.reduceat(sums, starts, axis=axis) / lengths
    return sums


def _text(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(array.astype(kind).tobytes()).decode("ascii")
