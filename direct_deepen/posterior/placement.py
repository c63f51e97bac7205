"""Images of a posterior file as they are shown elsewhere: magnitudes, cropped, and where they lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from direct_deepen.errors import require
from direct_deepen.posterior.posterior_file import PosteriorVolume


@dataclass(frozen=True)
class Grid:
    """Which of the pixels of a posterior file images shown elsewhere have, and where they lie."""

    shape: tuple[int, int, int]
    """Slices, rows and columns of the file."""
    window: tuple[slice, slice]
    """Rows and columns of the image, the middle of those of the file as DIRECT crops them."""
    affine: np.ndarray | None
    """From column, row and slice of the image to millimetres right, anterior and superior, where that is known."""

    @classmethod
    def of(cls, path: Path, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> Self:
        """Return the grid of a file of so many slices, rows and columns; its attributes say what is meant to be seen.

        An axis that is shorter than ``reconstruction_size`` is as it is. Attributes that are no place, such as a
        singular ``affine``, are a :class:`DeepenError`.
        """
        slices, height, width = shape
        size = (height, width)
        if "reconstruction_size" in attributes:
            wanted = _numbers(path, attributes, "reconstruction_size", 2).astype(int).clip(min=1).tolist()
            size = (min(wanted[0], height), min(wanted[1], width))
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        affine = None
        if "affine" in attributes:
            affine = _numbers(path, attributes, "affine", 16, positive=False).reshape(4, 4).copy()
            require(
                bool(np.linalg.matrix_rank(affine[:3, :3]) == 3),
                f"{path}: attribute affine is {affine.ravel().tolist()}; allowed: a matrix that can be inverted",
            )
            affine[:3, 3] += affine[:3, :2] @ [left, top]
        return cls((slices, height, width), (slice(top, top + size[0]), slice(left, left + size[1])), affine)

    @property
    def cropped_shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        rows, columns = self.window
        return rows.stop - rows.start, columns.stop - columns.start

    def cropped(self, images: np.ndarray) -> np.ndarray:
        """Return what an image has of those of the file, (..., row, column)."""
        return images[..., *self.window]

    def whole(self, cropped: np.ndarray) -> np.ndarray:
        """Return the inverse of :meth:`cropped`, with zero around."""
        images = np.zeros((*cropped.shape[:-2], *self.shape[1:]), cropped.dtype)
        images[..., *self.window] = cropped
        return images


@dataclass(frozen=True)
class PlacedImages:
    """Images of the size that the volume's header means, and where they lie, as far as that is known."""

    magnitudes: np.ndarray
    """Real (slice, row, column), in the units of the file."""
    voxel_size: tuple[float, float, float] | None
    """Along row, column and slice, in mm; None where it is unknown."""
    affine: np.ndarray | None
    """4×4, from column, row and slice of ``magnitudes`` to millimetres right, anterior, superior; None if unknown."""


def placed_images(volume: PosteriorVolume, name: str) -> PlacedImages:
    """Return a dataset of images of a volume, complex or real (slice, row, column), cropped about the centre.

    Its size is that of the attribute ``reconstruction_size``, and the place moves with the corner. Attributes that are
    no place, and a dataset of another shape are a :class:`DeepenError`.
    """
    stored, attributes = volume.arrays[name], volume.attributes
    require(
        stored.dtype.kind in "cf" and stored.ndim == 3 and stored.size > 0,
        f"{volume.path}: {name} holds {stored.dtype} of shape {stored.shape}; allowed: real or complex (slice, row, "
        "column)",
    )
    whole = np.abs(stored)
    grid = Grid.of(volume.path, whole.shape, attributes)
    voxel_size = None
    if "voxel_size" in attributes:
        along_row, along_column, across = _numbers(volume.path, attributes, "voxel_size", 3).tolist()
        voxel_size = (along_row, along_column, across)
    return PlacedImages(grid.cropped(whole), voxel_size, grid.affine)


def _numbers(path: Path, attributes: Mapping[str, Any], name: str, count: int, *, positive: bool = True) -> np.ndarray:
    """Return an attribute of so many finite numbers."""
    value = attributes[name]
    told = f"{path}: attribute {name} is {value}; allowed: {count} {'positive' if positive else 'finite'} numbers"
    require(not isinstance(value, str), told)
    found = np.atleast_1d(np.asarray(value, dtype=float)).ravel()
    require(len(found) == count and bool(np.isfinite(found).all() and (not positive or (found > 0).all())), told)
    return found
