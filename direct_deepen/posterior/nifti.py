"""Posterior files as NIfTI images, for the viewers of neuroimaging, and masks that were drawn on these."""

import gzip
from itertools import product
from pathlib import Path

import numpy as np

from direct_deepen.errors import optional_import, require
from direct_deepen.files import write_file
from direct_deepen.posterior.placement import Grid, placed_images
from direct_deepen.posterior.posterior_file import PosteriorVolume


def write_nifti(volume: PosteriorVolume, path: Path) -> list[Path]:
    """Write the magnitudes of MAP and mean, and the standard deviation, as NIfTI images (column, row, slice).

    Voxels and size, cropped about the centre, are those of the header of the volume; where it does not say, voxels have
    unit size. Where the patient lies is that of the attribute ``affine``, scanner's coordinates; without it that is not
    known, and the codes of the transforms say so. For ``<name>.nii`` or
    ``<name>.nii.gz`` the images are ``<name>_map.nii.gz`` and so on, which are returned. Another ending, a file without
    images, attributes that are no place, a disk that is full, and nibabel not installed are a :class:`DeepenError`.
    """
    with optional_import("nifti", "NIfTI images need nibabel"):
        from nibabel import Nifti1Image
    ending = next((ending for ending in (".nii.gz", ".nii") if path.name.endswith(ending)), "")
    require(ending != "", f"{path}: allowed: a name that ends with .nii or .nii.gz")
    kinds = volume.estimates() + (["std"] if "std" in volume.arrays else [])
    written = []
    for kind in kinds:
        placed = placed_images(volume, kind)
        image = Nifti1Image(placed.magnitudes.astype(np.float32).T, affine=None)
        known = "voxel size unknown" if placed.voxel_size is None else "orientation unknown"
        if placed.voxel_size is not None:
            row, column, slice_ = placed.voxel_size
            image.header.set_zooms((column, row, slice_))
            image.header.set_xyzt_units("mm")
        if placed.affine is not None:
            known = "scanner's coordinates"
            image.set_sform(placed.affine, code="scanner")
            image.set_qform(placed.affine, code="scanner")
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
