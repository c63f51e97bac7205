"""Posterior files as NIfTI images, for the viewers of neuroimaging."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from direct_deepen.errors import optional_import, require
from direct_deepen.files import write_file
from direct_deepen.posterior.posterior_file import PosteriorVolume


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
    found = volume.attributes.get("affine")
    affine = None if found is None else np.asarray(found, dtype=float).reshape(4, 4)
    for kind in kinds:
        whole = np.abs(volume.arrays[kind])
        cropped = _centre(whole, volume.attributes.get("reconstruction_size"))
        image = Nifti1Image(cropped.astype(np.float32).T, affine=None)
        if size is not None:
            row, column, slice_ = (float(length) for length in np.atleast_1d(size))
            image.header.set_zooms((column, row, slice_))
            image.header.set_xyzt_units("mm")
        known = "voxel size unknown" if size is None else "orientation unknown"
        if affine is not None:
            shift, known = np.eye(4), "scanner's coordinates"
            shift[:2, 3] = [(n - kept) // 2 for n, kept in zip(whole.shape[:0:-1], cropped.shape[:0:-1], strict=True)]
            image.set_sform(affine @ shift, code="scanner")
            image.set_qform(affine @ shift, code="scanner")
        image.header["descrip"] = f"{kind}, units of the data, {known}".encode()
        target = path.with_name(f"{path.name.removesuffix(ending)}_{kind}{ending}")
        content = image.to_bytes()
        write_file(target, gzip.compress(content, mtime=0) if ending == ".nii.gz" else content)
        written.append(target)
    return written


def _centre(images: np.ndarray, size: Any) -> np.ndarray:
    """Return the middle of images, (slice, row, column), as DIRECT crops them; an axis that is shorter as it is."""
    if size is None:
        return images
    lengths = [min(int(length), whole) for length, whole in zip(size, images.shape[1:], strict=True)]
    rows, columns = (
        slice((whole - length) // 2, (whole - length) // 2 + length)
        for length, whole in zip(lengths, images.shape[1:], strict=True)
    )
    return images[:, rows, columns]
