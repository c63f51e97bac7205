"""Where the slices lie: pose and smooth deformation of the head, and the field of view that holds it."""

import math

import numpy as np
from scipy.spatial.transform import Rotation

from direct_deepen.data.phantom.anatomy import Templates

type Plane = tuple[float, np.ndarray, np.ndarray]
"""A grid of points in mm from the slab's centre: one depth (up), rows (down) and columns (right)."""

_LOWEST_SLICE, _HIGHEST_SLICE = -12.0, 56.0
"""Axial range in mm of MNI space: from the midbrain, above the eyes that the templates lack, to below the vertex."""
_SLICE_SPACINGS = (3.0, 5.0)
_BRAIN_CENTRE = (0.0, -18.0)
"""Centre of the brain (x, y) in mm of MNI space."""
_HEAD_BEND, _BRAIN_BEND = (3.0, 75.0), (1.8, 20.0)
"""Amplitude and knot spacing, in mm, of the deformation of the whole head, and of a finer one of the brain alone."""
_EXTENT = (90.0, 320.0, 320.0)
"""Depth, height and width in mm that a field covers about its centre: more than any slab and field of view."""


class SmoothField:
    """Random function of space, mean 0 and variance about 1: a cubic B-spline whose knots are ``spacing`` mm apart."""

    def __init__(self, generator: np.random.Generator, spacing: float) -> None:
        shape = tuple(math.ceil(extent / spacing) + 3 for extent in _EXTENT)
        # ∫β³(t)² dt = 151/315 is the factor by which the spline along one axis reduces, on average, the variance.
        std = np.float32((315 / 151) ** (len(shape) / 2))
        self._coefficients = std * generator.standard_normal(shape, dtype=np.float32)
        self._spacing = spacing

    def at(self, plane: Plane) -> np.ndarray:
        """Values (rows, columns) on a plane."""
        depth, rows, columns = plane
        positions = np.array([depth], dtype=np.float32), rows, columns
        along_depth, along_rows, along_columns = (
            _spline_basis(position / self._spacing + (size - 3) / 2, size)
            for position, size in zip(positions, self._coefficients.shape, strict=True)
        )
        return along_rows @ np.tensordot(along_depth[0], self._coefficients, axes=1) @ along_columns.T


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


class Pose:
    """A random pose of the head, and its deformation: where a point of the scanner lies in MNI space.

    ``centre`` (3,) is where the slab's centre lies, and ``depths`` are the heights of the slices above it, in mm.
    """

    def __init__(self, generator: np.random.Generator, num_slices: int) -> None:
        thickest = (_HIGHEST_SLICE - _LOWEST_SLICE) / max(num_slices - 1, 1)
        depths = min(generator.uniform(*_SLICE_SPACINGS), thickest) * (np.arange(num_slices) - (num_slices - 1) / 2)
        level = generator.uniform(_LOWEST_SLICE - depths[0], _HIGHEST_SLICE - depths[-1])
        turn = Rotation.from_euler("XYZ", generator.normal(0.0, (4.0, 2.0, 4.0)), degrees=True).as_matrix()
        stretch = generator.normal(1.0, (0.05, 0.05, 0.04))
        self.centre = np.array([*_BRAIN_CENTRE, level], dtype=np.float32)
        self.depths = depths.astype(np.float32)
        # From the scanner's right, front and up to MNI space.
        self._turn = (turn / stretch).astype(np.float32)
        # A field for each axis, of the head and of the brain.
        self._bends = [
            (amplitude, [SmoothField(generator, spacing) for _ in range(3)])
            for amplitude, spacing in (_HEAD_BEND, _BRAIN_BEND)
        ]

    def places(self, plane: Plane) -> tuple[np.ndarray, np.ndarray]:
        """Points (3, rows, columns) of MNI space in mm that the plane shows, of the head and of the brain inside it."""
        depth, rows, columns = plane
        front, right = np.meshgrid(-rows, columns, indexing="ij")
        place = np.tensordot(self._turn, np.stack([right, front, np.full_like(right, depth)]), axes=1)
        head_shift, brain_shift = (
            amplitude * np.stack([field.at(plane) for field in fields]) for amplitude, fields in self._bends
        )
        head = place + self.centre[:, None, None] + head_shift
        return head, head + brain_shift


class View:
    """A random square field of view, ``side`` mm wide, with all within ``margin`` mm of the brain in every slice."""

    def __init__(self, generator: np.random.Generator, templates: Templates, pose: Pose, margin: float) -> None:
        spacing = 4.0
        probe = np.arange(-150.0, 151.0, spacing, dtype=np.float32)
        planes = [(float(depth), probe, probe) for depth in pose.depths]
        head = np.any([templates.distance_at(pose.places(plane)[0]) < margin for plane in planes], axis=0)
        limits = np.array([probe[np.flatnonzero(head.any(axis=1 - axis))[[0, -1]]] for axis in range(2)])
        # On either side the outline lies up to one spacing beyond the last probe inside.
        extent, centre = limits[:, 1] - limits[:, 0] + 2 * spacing, limits.mean(axis=1)
        # The extent errs upwards by some 4 %: the head itself fills about 70 to 95 %.
        self.side = float(extent.max() / generator.uniform(0.74, 0.96))
        room = np.maximum(0.95 * self.side - extent, 0.0) / 2
        offset = generator.uniform(-1.0, 1.0, 2) * np.minimum(room, 0.04 * self.side)
        # Down and right from the slab's centre.
        self._centre = (centre + offset).astype(np.float32)

    def plane(self, depth: float, size: int) -> Plane:
        """Centres of the pixels of a ``size`` × ``size`` image at ``depth``."""
        along = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * self.side
        return depth, along + self._centre[0], along + self._centre[1]
