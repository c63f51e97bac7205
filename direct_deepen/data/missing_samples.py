"""Samples of k-space that were not measured, though the volume may not say so: zeros, or noise far below the rest.

Energies are (coil, row, column), squares of magnitudes.
"""

import numpy as np
from scipy.ndimage import uniform_filter, uniform_filter1d

NOT_MEASURED = 1e-6
"""Magnitude of a sample, relative to their root mean square, below which it was not measured."""
_OUTSIDE = 1e-6
"""Energy of nearly all samples outside a mask, relative to the median inside, below which they were not measured."""
_GAPS_INSIDE, _GAPS = 0.05, 0.2
"""Shares of samples that are missing between others in undersampled data: of the inner half of k-space, and of all.
With twelve bits a number, measured data have 0.02 and 0.06."""
_LOW_LINE, _LOW_SAMPLE = 0.03, 0.01
"""Energy, relative to lines or samples around, below which it is noise that was put where nothing was measured."""
_LOW_LINES, _LOW_SAMPLES = 0.03, 0.2
"""Shares of such lines and samples in undersampled data. Measured data have no line below 0.4 of those around, and 1 %
of the samples of one coil, as noise has; edges that are zero, and a uniform disc without noise, change nothing."""
_LINES_AROUND, _SAMPLES_AROUND = 17, 9
_WHITE = 0.6
"""Share of the energy of such lines in their middle quarter, above which they are the zeros of an object's spectrum."""
_ROUNDED_LINE, _ROUNDED_SAMPLE, _ROUNDED = 1e-8, 1e-6, 1e-14
"""Energy around, relative to the largest, from which lines and samples of zeros were not rounded to them, with twelve
bits a number; and others that are low."""


def measured_samples(energy: np.ndarray) -> np.ndarray:
    """Return which samples (row, column) of an energy were measured."""
    return energy > NOT_MEASURED**2 * energy.mean()


def ends_with(energies: np.ndarray, mask: np.ndarray, rounded: bool) -> bool:
    """Return whether there is nothing outside a mask, but for what a lossy compression leaves, or a little noise."""
    energy = energies.sum(axis=0)
    if mask.all() or not energy[mask].any():
        return False
    inside = energy[mask]
    if np.quantile(energy[~mask], 0.99) <= _OUTSIDE * np.median(inside[inside > 0]):
        return True
    return not rounded and _many(_low(energies), ~mask & (_between(mask) | _between(mask.T).T))


def missing_samples(energies: np.ndarray, mask: np.ndarray | None = None, rounded: bool = False) -> np.ndarray:
    """Return which samples (row, column), of a mask if given, are missing between others; none unless there are many.

    These are zeros in all coils, or, unless numbers are rounded, nearly nothing in half of the coils.
    """
    inside = np.ones(energies.shape[1:], dtype=bool) if mask is None else mask
    sampled = measured_samples(energies.sum(axis=0)) & inside
    zeros = (_between(sampled) | _between(sampled.T).T) & inside
    # In the outer half numbers that are rounded to integers may be zero.
    many = _inner(zeros).mean() >= _GAPS_INSIDE or zeros.mean() >= _GAPS
    if rounded:
        return zeros & many
    low = _low(energies * inside)
    return (zeros | low) & inside & (many or _many(low, inside))


def _inner(values: np.ndarray) -> np.ndarray:
    return values[tuple(slice(size // 4, size - size // 4) for size in values.shape)]


def _many(low: np.ndarray, inside: np.ndarray) -> bool:
    """Return whether so many of some samples are low, or of the whole lines of them, that they were not measured."""
    lines = [low.all(axis=axis)[inside.all(axis=axis)] for axis in (0, 1)]
    samples = [low[inside], _inner(low)[_inner(inside)]]
    shares = [(found, _LOW_LINES) for found in lines] + [(found, _LOW_SAMPLES) for found in samples]
    return any(found.any() and found.mean() >= share for found, share in shares)


def _low(energies: np.ndarray) -> np.ndarray:
    """Return samples (row, column) far below those around: alone, or with all of their line."""
    means = energies.mean(axis=(-2, -1), keepdims=True)
    # A coil with another unit, or one that is broken, is no measure of the others.
    relative = (energies / np.where(means > 0, means, 1))[means[:, 0, 0] > 0]
    energy = _half(relative)
    level = uniform_filter(energy, _SAMPLES_AROUND, mode="nearest")
    level = np.minimum(level, np.maximum(_lower_side(energy), _lower_side(energy.T).T))
    rounded = np.where(energy > 0, _ROUNDED, _ROUNDED_SAMPLE) * energy.max()
    alone = (energy < _LOW_SAMPLE * level) & (level > rounded)
    return alone | _low_lines(relative) | _low_lines(relative.swapaxes(-2, -1))[:, None]


def _low_lines(relative: np.ndarray) -> np.ndarray:
    """Return which columns of (coil, row, column) are far below those on both sides."""
    lines = _half(relative.mean(axis=-2))
    level = np.minimum(uniform_filter1d(lines, _LINES_AROUND, mode="nearest"), _lower_side(lines))
    low = (lines < _LOW_LINE * level) & (level > np.where(lines > 0, _ROUNDED, _ROUNDED_LINE) * relative.max())
    along = _half(relative)[:, low].sum(axis=-1)
    middle = along[3 * len(along) // 8 : len(along) - 3 * len(along) // 8]
    return low & (middle.sum() <= _WHITE * along.sum())


def _half(values: np.ndarray) -> np.ndarray:
    """Return the value that half of the coils, the first axis, do not exceed."""
    middle = (len(values) - 1) // 2
    return np.partition(values, middle, axis=0)[middle]


def _lower_side(values: np.ndarray) -> np.ndarray:
    """Return the largest value before and up to each along the last axis, or after and from it if that is less."""
    before = np.maximum.accumulate(values, axis=-1)
    return np.minimum(before, np.maximum.accumulate(values[..., ::-1], axis=-1)[..., ::-1])


def _between(sampled: np.ndarray) -> np.ndarray:
    """Return where a sample is missing that has measured ones on both sides along the last axis."""
    before = np.logical_or.accumulate(sampled, axis=-1)
    after = np.logical_or.accumulate(sampled[..., ::-1], axis=-1)[..., ::-1]
    return before & after & ~sampled
