"""Where images lie: from pixels to the coordinates of the patient, as NIfTI has them."""

import numpy as np

from direct_deepen.scans.preparation import PreparedScan
from direct_deepen.scans.trajectories import PreparedTrajectory

_EVENLY = 0.01
"""Of the distance of slices, up to which they are evenly spaced."""


def affine_of(prepared: PreparedScan | PreparedTrajectory, numbers: list[int]) -> np.ndarray | None:
    """Return the matrix from (column, row, slice) of images to millimetres right, anterior, superior, 4×4.

    None where the file has no positions or no voxel size, slices are of several series, which alternate or begin anew,
    or they are not evenly spaced. A file's positions are left, posterior, superior, of the pixel (rows // 2,
    columns // 2).
    """
    scan, size = prepared.scan, prepared.voxel_size
    if len(scan.positions) == 0 or size is None:
        return None
    if scan.places and len({scan.places[number][1] for number in numbers}) > 1:
        return None
    positions = [scan.positions[number] for number in numbers]
    first = positions[0]
    centres = np.stack([position.centre for position in positions])
    steps = np.diff(centres, axis=0)
    step = first.slice_direction * size[2] if len(steps) == 0 else steps.mean(axis=0)
    if len(steps) > 0 and np.abs(steps - step).max() > _EVENLY * np.linalg.norm(step):
        return None
    row, column = first.row_direction * size[0], first.column_direction * size[1]
    corner = first.centre - row * (prepared.size[0] // 2) - column * (prepared.size[1] // 2)
    affine = np.eye(4)
    affine[:3] = np.stack([column, row, step, corner], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
