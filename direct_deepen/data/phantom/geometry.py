"""Where the slices lie: pose and deformation of the head, and the field of view that holds it."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from direct_deepen.data.phantom.anatomy import Templates
from direct_deepen.data.phantom.fields import Plane, SmoothField, draw_field

_LOWEST_SLICE, _HIGHEST_SLICE = -12.0, 56.0
"""Axial range in mm of MNI space: from the midbrain, above the eyes that the templates lack, to below the vertex."""
_SLICE_SPACINGS = (3.0, 5.0)
_BRAIN_CENTRE = (0.0, -18.0)
"""Centre of the brain (x, y) in mm of MNI space."""
_HEAD_BEND, _BRAIN_BEND = (3.0, 75.0), (1.8, 20.0)
"""Amplitude and knot spacing, in mm, of the deformation of the whole head, and of a finer one of the brain alone."""


@dataclass(frozen=True)
class Pose:
    """Where a point of the scanner lies in MNI space.

    Attributes
    ----------
    centre
        Point of MNI space (3,) at the centre of the slab, mm.
    turn
        Matrix (3, 3) from the scanner's right, front and up to MNI space: rotation and stretch.
    depths
        Height of each slice above the centre of the slab, mm.
    head_bend, brain_bend
        Deformation of the whole head, and of the brain alone: a field for each axis.
    """

    centre: np.ndarray
    turn: np.ndarray
    depths: np.ndarray
    head_bend: tuple[SmoothField, ...]
    brain_bend: tuple[SmoothField, ...]

    def places(self, plane: Plane) -> tuple[np.ndarray, np.ndarray]:
        """Points (3, rows, columns) of MNI space in mm that the plane shows, of the head and of the brain inside it."""
        depth, rows, columns = plane
        front, right = np.meshgrid(-rows, columns, indexing="ij")
        place = np.tensordot(self.turn, np.stack([right, front, np.full_like(right, depth)]), axes=1)
        head_shift, brain_shift = (
            amplitude * np.stack([axis.at(plane) for axis in bend])
            for (amplitude, _), bend in ((_HEAD_BEND, self.head_bend), (_BRAIN_BEND, self.brain_bend))
        )
        head = place + self.centre[:, None, None] + head_shift
        return head, head + brain_shift


@dataclass(frozen=True)
class View:
    """The square field of view: its side, and its centre (down, right) from the slab's centre, in mm."""

    side: float
    centre: np.ndarray

    def plane(self, depth: float, size: int) -> Plane:
        """Centres of the pixels of a ``size`` × ``size`` image at ``depth``."""
        along = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * self.side
        return depth, along + self.centre[0], along + self.centre[1]


def draw_pose(generator: np.random.Generator, num_slices: int) -> Pose:
    """Draw the slab, and how the head lies in it and is deformed."""
    thickest = (_HIGHEST_SLICE - _LOWEST_SLICE) / max(num_slices - 1, 1)
    depths = min(generator.uniform(*_SLICE_SPACINGS), thickest) * (np.arange(num_slices) - (num_slices - 1) / 2)
    level = generator.uniform(_LOWEST_SLICE - depths[0], _HIGHEST_SLICE - depths[-1])
    turn = Rotation.from_euler("XYZ", generator.normal(0.0, (4.0, 2.0, 4.0)), degrees=True).as_matrix()
    stretch = generator.normal(1.0, (0.05, 0.05, 0.04))
    head_bend, brain_bend = (
        tuple(draw_field(generator, spacing) for _ in range(3)) for _, spacing in (_HEAD_BEND, _BRAIN_BEND)
    )
    return Pose(
        centre=np.array([*_BRAIN_CENTRE, level], dtype=np.float32),
        turn=(turn / stretch).astype(np.float32),
        depths=depths.astype(np.float32),
        head_bend=head_bend,
        brain_bend=brain_bend,
    )


def draw_view(generator: np.random.Generator, templates: Templates, pose: Pose, head_margin: float) -> View:
    """Draw a field of view that holds, in every slice, the head: all within ``head_margin`` mm of the brain."""
    spacing = 4.0
    probe = np.arange(-150.0, 151.0, spacing, dtype=np.float32)
    planes = [(float(depth), probe, probe) for depth in pose.depths]
    head = np.any([templates.distance_at(pose.places(plane)[0]) < head_margin for plane in planes], axis=0)
    limits = np.array([probe[np.flatnonzero(head.any(axis=1 - axis))[[0, -1]]] for axis in range(2)])
    # On either side the outline lies up to one spacing beyond the last probe inside.
    extent, centre = limits[:, 1] - limits[:, 0] + 2 * spacing, limits.mean(axis=1)
    # The extent errs upwards by some 4 %: the head itself fills about 70 to 95 %.
    side = float(extent.max() / generator.uniform(0.74, 0.96))
    room = np.maximum(0.95 * side - extent, 0.0) / 2
    offset = generator.uniform(-1.0, 1.0, 2) * np.minimum(room, 0.04 * side)
    return View(side=side, centre=(centre + offset).astype(np.float32))
