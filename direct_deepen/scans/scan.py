"""What a scanner's file holds, whatever its format: k-space on a grid, and what is known besides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from direct_deepen.errors import require


class Slices(Protocol):
    """K-space of all slices, (slice, coil, row, column), or (slice, row, column) of one coil, read when asked for.

    An array, a dataset of HDF5, or what has their ``shape``, ``dtype`` and indexing by numbers of slice and coil.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of slices, coils, rows and columns."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""

    def __getitem__(self, place: Any) -> np.ndarray:
        """Return a slice, or one coil of it."""

    def __len__(self) -> int:
        """Return the number of slices."""


@dataclass(frozen=True)
class Position:
    """Where a slice lies, in the patient's coordinates of DICOM and ISMRMRD: left, posterior, superior, millimetres."""

    centre: np.ndarray
    """Of the pixel in the middle, (rows // 2, columns // 2)."""
    row_direction: np.ndarray
    """Unit vector towards the next row, the direction of the readout."""
    column_direction: np.ndarray
    """Unit vector towards the next column."""
    slice_direction: np.ndarray
    """Unit vector across the slice."""


@dataclass(frozen=True)
class Scan:
    """A file that is open: its k-space, and what it says of it."""

    path: Path
    kind: str
    """Name of the format."""
    kspace: Slices
    mask: Any = None
    """Where it was sampled: over columns, or rows and columns, of all slices or each; None where zeros say it."""
    header: Any = None
    """ISMRMRD header, XML."""
    trajectory: np.ndarray | None = None
    """Where samples are that are on no grid: real (sample, …, 2), cycles a pixel along rows and columns, the first axis
    along a ray or an interleaf; k-space is (slice, coil, sample) then."""
    matrix: int | None = None
    """Rows and columns of the images of such samples, where it is known."""
    noise: np.ndarray | None = None
    """Noise, complex (coil, samples), as it is in k-space."""
    noise_covariance: np.ndarray | None = None
    """Covariance of the noise of the coils, complex (coil, coil)."""
    calibration: Slices | None = None
    """K-space of a separate scan for the coil maps, as ``kspace``."""
    labels: Sequence[str] = ()
    """What every image is, where they are not just slices in their order."""
    places: Sequence[tuple[int, int]] = ()
    """Slice and series (contrast, repetition and so on) of every image, where there is more than one series."""
    positions: Sequence[Position] = ()
    """Of every slice, where the file says so."""
    remarks: Sequence[str] = field(default_factory=tuple)
    """What the reader has done that one should know."""

    @property
    def name(self) -> str:
        """Name of the file without its ending."""
        name = self.path.name
        for ending in (".nii.gz", ".h5", ".hdf5", ".mrd", ".cfl", ".hdr", ".npy", ".npz", ".mat"):
            name = name.removesuffix(ending)
        return name

    def label(self, number: int) -> str:
        """Return what a slice is called."""
        return self.labels[number] if self.labels else f"slice {number + 1}"


AXES = ("slice", "coil", "row", "column")


def in_order(array: Any, axes: Sequence[str], where: str) -> Any:
    """Return an array whose axes have these names as (slice, coil, row, column); axes it lacks have length one.

    A :class:`DeepenError` names axes that are unknown, twice there, or not as many as the array has.
    """
    told = f"{where}: axes are {','.join(axes)}"
    require(set(axes) <= set(AXES), f"{told}; allowed: {', '.join(AXES)}")
    require(len(set(axes)) == len(axes), f"{told}; allowed: each of them once")
    require({"row", "column"} <= set(axes), f"{told}; allowed: row and column among them")
    require(
        array.ndim == len(axes),
        f"{told}, and the array has the shape {tuple(array.shape)}; allowed: --axes with {array.ndim} of "
        f"{', '.join(AXES)}, as in coil,row,column",
    )
    present = [axis for axis in AXES if axis in axes]
    array = array.transpose([axes.index(axis) for axis in present])
    return array[tuple(slice(None) if axis in axes else None for axis in AXES)]


def places_of(counters: np.ndarray, slices: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return slice and series of images, by their counters, integer (image, counter), of which some count slices.

    Nothing where there is one series.
    """
    chosen = np.isin(np.arange(counters.shape[1]), slices)
    of_slice, of_series = (
        np.unique(counters[:, where], axis=0, return_inverse=True)[1].ravel() for where in (chosen, ~chosen)
    )
    if not of_series.any():
        return ()
    return tuple(zip(of_slice.tolist(), of_series.tolist(), strict=True))
