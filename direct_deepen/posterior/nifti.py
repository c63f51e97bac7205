"""Posterior files as NIfTI images, for the viewers of neuroimaging, and masks that were drawn on these."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from direct_deepen.errors import optional_import, require
from direct_deepen.files import write_file
from direct_deepen.posterior.posterior_file import PosteriorVolume


@dataclass(frozen=True)
class Grid:
    """Which of the pixels of a posterior file a NIfTI image has, (column, row, slice), and where they lie."""

    shape: tuple[int, int, int]
    """Slices, rows and columns of the file."""
    window: tuple[slice, slice]
    """Rows and columns of the image, the middle of those of the file as DIRECT crops them."""
    affine: np.ndarray | None
    """From column, row and slice of the image to millimetres right, anterior and superior, where that is known."""

    @classmethod
    def of(cls, shape: tuple[int, int, int], attributes: Mapping[str, Any]) -> "Grid":
        """Return the grid of a file of so many slices, rows and columns; its attributes say what is meant to be seen.

        An axis that is shorter than ``reconstruction_size`` is as it is.
        """
        size, found = attributes.get("reconstruction_size"), attributes.get("affine")
        lengths = [min(int(n), whole) for n, whole in zip(shape[1:] if size is None else size, shape[1:], strict=True)]
        starts = [(whole - length) // 2 for whole, length in zip(shape[1:], lengths, strict=True)]
        rows, columns = (slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
        if found is None:
            return cls(shape, (rows, columns), None)
        shift = np.eye(4)
        shift[:2, 3] = columns.start, rows.start
        return cls(shape, (rows, columns), np.asarray(found, dtype=float).reshape(4, 4) @ shift)

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


def write_nifti(volume: PosteriorVolume, path: Path) -> list[Path]:
    """Write the magnitudes of MAP and mean, and the standard deviation, as NIfTI images (column, row, slice).

    Voxels and size, cropped about the centre, are those of the header of the volume; where it does not say, voxels have
    unit size. Where the patient lies is that of the attribute ``affine``, scanner's coordinates; without it that is not
    known, and the codes of the transforms say so. For ``<name>.nii`` or
    ``<name>.nii.gz`` the images are ``<name>_map.nii.gz`` and so on, which are returned. Another ending, a file without
    images, a disk that is full, and nibabel not installed are a :class:`DeepenError`.
    """
    with optional_import("nifti", "NIfTI images need nibabel"):
        from nibabel import Nifti1Image
    ending = next((ending for ending in (".nii.gz", ".nii") if path.name.endswith(ending)), "")
    require(ending != "", f"{path}: allowed: a name that ends with .nii or .nii.gz")
    kinds = volume.estimates() + (["std"] if "std" in volume.arrays else [])
    written, size = [], volume.attributes.get("voxel_size")
    for kind in kinds:
        whole = np.abs(volume.arrays[kind])
        grid = Grid.of(whole.shape, volume.attributes)
        image = Nifti1Image(grid.cropped(whole).astype(np.float32).T, affine=None)
        if size is not None:
            row, column, slice_ = (float(length) for length in np.atleast_1d(size))
            image.header.set_zooms((column, row, slice_))
            image.header.set_xyzt_units("mm")
        known = "voxel size unknown" if size is None else "orientation unknown"
        if grid.affine is not None:
            known = "scanner's coordinates"
            image.set_sform(grid.affine, code="scanner")
            image.set_qform(grid.affine, code="scanner")
        image.header["descrip"] = f"{kind}, units of the data, {known}".encode()
        target = path.with_name(f"{path.name.removesuffix(ending)}_{kind}{ending}")
        content = image.to_bytes()
        write_file(target, gzip.compress(content, mtime=0) if ending == ".nii.gz" else content)
        written.append(target)
    return written


def read_drawn(path: Path, grid: Grid) -> np.ndarray:
    """Read what was drawn on a NIfTI image of a grid, real (slice, row, column), or (row, column) of two axes.

    Axes that were turned or swapped since are turned back, where both files say where the patient lies. A
    :class:`DeepenError` if it then lies elsewhere, by more than a tenth of a voxel, and if nibabel is not installed;
    what nibabel cannot read raises its errors.
    """
    with optional_import("nifti", "NIfTI images need nibabel"):
        import nibabel
        from nibabel.affines import apply_affine, voxel_sizes
    image = nibabel.load(path)
    codes = [int(image.header[name]) for name in ("sform_code", "qform_code")]
    if len(image.shape) == 3 and grid.affine is not None and any(codes):
        axes = [nibabel.io_orientation(affine) for affine in (image.affine, grid.affine)]
        image = image.as_reoriented(nibabel.orientations.ornt_transform(*axes))
        corners = np.array(list(product(*((0, length - 1) for length in image.shape))))
        here, there = (apply_affine(affine, corners) for affine in (image.affine, grid.affine))
        distance = float(np.linalg.norm(here - there, axis=1).max())
        require(
            distance <= 0.1 * float(voxel_sizes(grid.affine).min()),
            f"{path}: lies up to {distance:.3g} mm off the images; allowed: a mask drawn on what --nifti writes",
        )
    return np.asarray(image.dataobj).T
