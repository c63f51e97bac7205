"""Posterior files as NIfTI images, for the viewers of neuroimaging."""

import gzip
from pathlib import Path

import numpy as np

from direct_deepen.errors import optional_import, require
from direct_deepen.files import write_file
from direct_deepen.posterior.posterior_file import PosteriorVolume


def write_nifti(volume: PosteriorVolume, path: Path) -> list[Path]:
    """Write the magnitudes of MAP and mean, and the standard deviation, as NIfTI images (column, row, slice).

    The posterior file knows neither the size of a voxel nor where the patient lies: voxels have unit size, and the
    codes of the transforms say that they are unknown. For ``<name>.nii`` or ``<name>.nii.gz`` the images are
    ``<name>_map.nii.gz`` and so on, which are returned. Another ending, a file without images, a disk that is full, and
    nibabel not installed are a :class:`DeepenError`.
    """
    with optional_import("nifti", "NIfTI images need nibabel"):
        from nibabel import Nifti1Image
    ending = next((ending for ending in (".nii.gz", ".nii") if path.name.endswith(ending)), "")
    require(ending != "", f"{path}: allowed: a name that ends with .nii or .nii.gz")
    kinds = volume.estimates() + (["std"] if "std" in volume.arrays else [])
    written = []
    for kind in kinds:
        image = Nifti1Image(np.abs(volume.arrays[kind]).astype(np.float32).T, affine=None)
        image.header["descrip"] = f"{kind}, units of the data, voxel size unknown".encode()
        target = path.with_name(f"{path.name.removesuffix(ending)}_{kind}{ending}")
        content = image.to_bytes()
        write_file(target, gzip.compress(content, mtime=0) if ending == ".nii.gz" else content)
        written.append(target)
    return written
