"""Smooth random functions of space, which deform and shade the anatomy."""

import math
from dataclasses import dataclass

import numpy as np

type Plane = tuple[float, np.ndarray, np.ndarray]
"""A grid of points in mm from the slab's centre: one depth (up), rows (down) and columns (right)."""

_EXTENT = (90.0, 320.0, 320.0)
"""Depth, height and width in mm that a field covers about its centre: more than any slab and field of view."""


@dataclass(frozen=True)
class SmoothField:
    """Random function of space, mean 0 and variance about 1: a cubic B-spline with independent normal coefficients."""

    coefficients: np.ndarray
    spacing: float

    def at(self, plane: Plane) -> np.ndarray:
        """Values (rows, columns) on a plane."""
        depth, rows, columns = plane
        along_depth, along_rows, along_columns = (
            _spline_basis(position / self.spacing + (size - 3) / 2, size)
            for position, size in zip(
                (np.array([depth], dtype=np.float32), rows, columns), self.coefficients.shape, strict=True
            )
        )
        return along_rows @ np.tensordot(along_depth[0], self.coefficients, axes=1) @ along_columns.T


def draw_field(generator: np.random.Generator, spacing: float) -> SmoothField:
    """Draw a field with knots ``spacing`` mm apart."""
    shape = tuple(math.ceil(extent / spacing) + 3 for extent in _EXTENT)
    # ∫β³(t)² dt = 151/315 is the factor by which the spline along one axis reduces, on average, the variance.
    std = np.float32((315 / 151) ** (len(shape) / 2))
    return SmoothField(std * generator.standard_normal(shape, dtype=np.float32), spacing)


def _spline_basis(positions: np.ndarray, size: int) -> np.ndarray:
    """Cubic B-splines (positions, size) at ``positions`` in units of knots, constant beyond the ends."""
    inside = np.clip(positions, 0.0, size - 3 - 1e-3)
    knot = inside.astype(int)
    t = (inside - knot).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    basis = np.zeros((len(positions), size), dtype=np.float32)
    for offset, weight in enumerate(weights):
        basis[np.arange(len(positions)), knot + offset] = weight / 6
    return basis
