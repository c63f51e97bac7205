"""Scans whose samples are not on a grid, as reconstruction problems: radial, spiral, or any other trajectory.

K-space is gridded, coil by coil, for coil maps and the gauge of the energies alone; the likelihood is that of the
samples as they are, all with the same noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.espirit import LARGEST_CALIBRATION
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.non_cartesian import (
    NonCartesianOperator,
    adjoint_transform,
    density_compensation,
    require_trajectory,
)
from direct_deepen.physics.prewhitening import prewhitened
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.scale import intensity_scale
from direct_deepen.physics.sense import sense
from direct_deepen.physics.sense_operator import SenseOperator, align_phase
from direct_deepen.scans.preparation import (
    CORNERS,
    Choices,
    PreparedSlice,
    coil_maps_of,
    compressed,
    covariance_of,
    maps_given,
)
from direct_deepen.scans.scan import Scan

_OUTER = 0.9
"""Share of the largest distance from the centre, beyond which samples have little signal."""
_EMPTY = 1e-10
_STRAIGHT, _BY_COILS = 0.05, 1.25
"""Change of the step along a ray, up to which it is straight; field of view over that of the sampling density."""
_NEAR = 0.75
"""Of the distance of positions on the grid: of a square whose corners have samples the middle is at 0.71."""
_GRIDDING = 0.01
"""Weight of the squares of an image, so that what is between samples does not grow."""
_FINE = 1024
"""Cells along an axis in which gaps of a trajectory are looked for, of a cycle a pixel."""


@dataclass(frozen=True)
class PreparedTrajectory:
    """A scan whose slices, (slice, coil, sample), are prepared one by one; as :class:`PreparedScan`."""

    scan: Scan
    choices: Choices
    trajectory: torch.Tensor
    """Cycles a pixel along rows and columns, real (sample, 2)."""
    shots: np.ndarray
    """The ray or interleaf that a sample is of, integer (sample,)."""
    size: tuple[int, int]
    voxel_size: tuple[float, float, float] | None
    found: Mapping[str, str]

    @property
    def num_slices(self) -> int:
        """Number of slices."""
        return len(self.scan.kspace)

    def is_empty(self, number: int) -> bool:
        """Return whether a slice has no signal."""
        return not np.asarray(self.scan.kspace[number]).any()

    def slice(self, number: int) -> PreparedSlice:
        """Prepare a slice; a :class:`DeepenError`, which names it, if that cannot be."""
        try:
            return self._prepare(number)
        except DeepenError as error:
            raise DeepenError(f"{self.scan.path}: {self.scan.label(number)}: {error}") from error

    def _prepare(self, number: int) -> PreparedSlice:
        choices = self.choices
        data = torch.from_numpy(np.array(self.scan.kspace[number], dtype=np.complex64, order="C"))
        require(bool(torch.isfinite(data).all()), "kspace holds a value that is not finite; allowed: finite numbers")
        require(bool(data.any()), "kspace is zero; allowed: data with a signal")
        found = dict[str, str]()
        covariance, found["noise"] = covariance_of(self.scan, choices)
        if covariance is not None:
            data = prewhitened(data[:, None], covariance)[:, 0]
        level, found["noise level"] = self._level(data)
        near = self.trajectory.square().sum(dim=1).sqrt() < LARGEST_CALIBRATION / 2 / min(self.size)
        (data,), found["coils"] = compressed([data], data[:, near], choices.most_coils)
        full, kept = data, torch.ones(len(self.trajectory), dtype=torch.bool)
        if choices.undersampling is not None:
            step = int(choices.undersampling.acceleration)
            kept = torch.from_numpy(self.shots % step == 0)
            found["sampling"] = f"one in {step} of {int(self.shots.max()) + 1} rays or interleaves"
        trajectory, data = self.trajectory[kept], data[:, kept]
        gridded = gridded_kspace(data, trajectory, self.size)
        maps = self._maps(gridded, trajectory, number, found)
        grid = align_phase(SenseOperator(maps[None], torch.ones(1, 1, *self.size)), gridded[None])
        A = NonCartesianOperator(grid.sensitivity_map, trajectory)
        start = sense(A, data[None], max_iterations=20)
        scale = intensity_scale(grid, grid.forward(start), kind=choices.intensity_scale)
        # What is asked of a problem's operator it has; masks are asked for by what does not come here.
        operator = cast("SenseOperator", A)
        problem = Problem(operator, data[None] / scale[:, None, None], scale, [(self.scan.path.name, number)])
        reference = None
        if choices.undersampling is not None:
            whole = NonCartesianOperator(grid.sensitivity_map, self.trajectory)
            reference = sense(whole, full[None], max_iterations=50)[0]
        return PreparedSlice(problem, level, found, reference)

    def _maps(
        self, gridded: torch.Tensor, trajectory: torch.Tensor, number: int, found: dict[str, str]
    ) -> torch.Tensor:
        given = maps_given(self.choices, number, self.num_slices, (len(gridded), *self.size))
        if given is not None:
            found["coil maps"] = "given"
            return given
        sampled = torch.zeros(self.size, dtype=torch.bool)
        width = dense_width(trajectory, self.size)
        top, left = (size // 2 - width // 2 for size in self.size)
        sampled[top : top + width, left : left + width] = True
        maps, found["coil maps"] = coil_maps_of(gridded * sampled, sampled)
        return maps

    def _level(self, data: torch.Tensor) -> tuple[float, str]:
        r"""Return η, given, or of the outermost samples, which have little signal: of half of them less than the noise.

        .. math:: \eta = \frac{\mathrm{median}\,|b_j|}{\sqrt{2 \ln 2}}, \qquad |k_j| \ge 0.9 \max |k|
        """
        given = self.choices.noise_std
        if given is not None:
            return given, f"{given:.3g}, given"
        distance = self.trajectory.square().sum(dim=1).sqrt()
        outer = data[:, distance >= _OUTER * distance.max()].abs()
        level = float(outer.median()) / math.sqrt(2 * math.log(2))
        return level, f"{level:.3g}, of the outermost samples, whose signal makes it too large"


def prepare_trajectory(scan: Scan, choices: Choices | None = None) -> PreparedTrajectory:
    """Look at a scan with a trajectory as a whole.

    Raises
    ------
    DeepenError
        If trajectory and data do not belong together, or positions are beyond half a cycle a pixel.
    """
    choices = choices or Choices()
    path, kspace, given = scan.path, scan.kspace, scan.trajectory
    assert given is not None
    positions = given.reshape(-1, 2)
    try:
        require(
            len(kspace.shape) == 3 and kspace.shape[-1] == len(positions),
            f"kspace has {kspace.shape[-1]} samples a coil, and the trajectory {len(positions)}; allowed: equally many",
        )
        trajectory = torch.from_numpy(np.array(positions, dtype=np.float32, order="C"))
        require_trajectory(trajectory)
        require(choices.noise != CORNERS, "--noise is corners; allowed for samples that are not on a grid: white")
        trial = choices.undersampling
        require(
            trial is None or float(trial.acceleration).is_integer(),
            f"--accelerate is {None if trial is None else trial.acceleration}; allowed for rays and interleaves: whole "
            "numbers",
        )
    except DeepenError as error:
        raise DeepenError(f"{path}: {error}") from error
    # The first axis runs along a ray or an interleaf.
    rest = math.prod(given.shape[1:-1])
    shots = np.broadcast_to(np.arange(rest), (given.shape[0], rest)).reshape(-1)
    side = scan.matrix or found_matrix(given)
    told = f"{len(positions)} samples, {rest} rays or interleaves; "
    told += "matrix given" if scan.matrix else "matrix of their distances"
    return PreparedTrajectory(
        scan, choices, trajectory, shots, (side, side), None, {"trajectory": f"{told}: {side}×{side}"}
    )


def found_matrix(trajectory: np.ndarray) -> int:
    """Return rows and columns of the field of view of a trajectory, (sample, …, 2) in cycles a pixel.

    Where rays are straight, it is what their samples show, one over the distance of two. Else it is a quarter more than
    samples are dense enough for, as coils fill that: gaps are circles without a sample, half the distance of
    neighbours, of which 95 % are no larger than what is taken, in the ring from a half to nine tenths of the largest
    distance from the centre.
    """
    steps = np.diff(trajectory.reshape(len(trajectory), -1, 2)[:, 0].astype(float), axis=0)
    if len(steps) > 1 and np.abs(steps - steps.mean(axis=0)).max() < _STRAIGHT * np.linalg.norm(steps.mean(axis=0)):
        return _even(1 / float(np.linalg.norm(steps.mean(axis=0))))
    positions = trajectory.reshape(-1, 2)
    edges = (np.arange(_FINE + 1) - 0.5) / _FINE - 0.5
    counts, _, _ = np.histogram2d(positions[:, 0], positions[:, 1], bins=(edges, edges))
    distance = distance_transform_edt(counts == 0) / _FINE
    radius = np.hypot(*np.meshgrid(*[edges[:-1] + 0.5 / _FINE] * 2, indexing="ij"))
    largest = float(np.hypot(*positions.T).max())
    ring = (radius > 0.5 * largest) & (radius < 0.9 * largest)
    gap = 2 * float(np.quantile(distance[ring], 0.95))
    return _even(_BY_COILS / max(gap, 2 / _FINE))


def dense_width(trajectory: torch.Tensor, size: tuple[int, int]) -> int:
    """Return the side of the largest centred square of k-space, in samples of the grid, without gaps.

    Nowhere in it is the nearest sample further than three quarters of their distance. At most
    :data:`~direct_deepen.physics.espirit.LARGEST_CALIBRATION`.
    """
    samples = cKDTree(trajectory.double().numpy() * size)
    for width in range(min(LARGEST_CALIBRATION, *size), 0, -1):
        along = np.linspace(-width / 2, width / 2, 4 * width + 1)
        places = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1)
        if samples.query(places.reshape(-1, 2))[0].max() <= _NEAR:
            return width
    return 0


def _even(size: float) -> int:
    return int(np.clip(2 * round(size / 2), 32, 640))


def gridded_kspace(data: torch.Tensor, trajectory: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return k-space on the grid, complex (coil, row, column), of samples (coil, sample): that of least squares.

    Conjugate gradients from the adjoint with density compensation. That alone is wrong by several per cent between
    samples, of which ESPIRiT finds maps that leave most of the object out.
    """
    coils = len(data)
    A = NonCartesianOperator(torch.ones(coils, 1, *size, dtype=data.dtype), trajectory)
    start = adjoint_transform(density_compensation(trajectory, size) * data, trajectory, size)
    return fft2(sense(A, data[:, None], regularization=_GRIDDING, initial=start, tolerance=1e-3, max_iterations=20))
