"""Volumes that were undersampled when they were measured: how to recognise them, and where they are allowed.

fastMRI's public test set is of this kind: a file holds ``mask``, one number a column, and its k-space is zero outside
of it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from direct_deepen.data.fastmri_file import open_volume
from direct_deepen.errors import require

_RESAMPLING = (("cropping", "crop"), ("augmentation", "rescale"), ("augmentation", "pad"))
"""Transforms of DIRECT after which k-space has samples between those that were measured."""


def require_fully_sampled(path: Path) -> None:
    """Raise unless a volume is fully sampled, as references and simulated masks need it to be.

    A volume that holds no ``mask``, or has samples outside of it, counts as fully sampled. The middle slice decides.

    Parameters
    ----------
    path
        HDF5 file with ``kspace``, (slice, coil, row, column) or without coils.

    Raises
    ------
    DeepenError
        If it is undersampled already, or cannot be read.
    """
    with open_volume(path) as file:
        require(
            not _is_undersampled(file["kspace"], file.get("mask")),
            f"{path}: undersampled already: its k-space is zero outside its `mask`; allowed: fully sampled volumes, as "
            "references and simulated masks need them (`direct predict` takes it with inference.dataset.pass_mask: "
            "true and inference.dataset.transforms.masking: null)",
        )


def require_masks_of_files(section: Any, paths: Iterable[Path]) -> None:
    """Raise unless the files can supply the masks, where ``inference.dataset`` has none to simulate.

    Parameters
    ----------
    section
        The section ``inference.dataset`` of a configuration, merged with DIRECT's defaults.
    paths
        The volumes.

    Raises
    ------
    DeepenError
        If ``pass_mask`` is false, a volume has no mask over its columns, or a transform would change the columns.
    """
    key = "inference.dataset"
    require(
        bool(section.get("pass_mask", False)),
        f"{key}.transforms.masking is null and {key}.pass_mask is false, so that there are no masks; allowed: a mask "
        "to simulate, or pass_mask: true for those of the files",
    )
    for group, name in _RESAMPLING:
        value = section.transforms[group][name]
        require(
            value is None,
            f"{key}.transforms.{group}.{name} is {value!r}; allowed with masking: null: null, as k-space is known at "
            "the columns that were measured and no others (inference.crop: header crops the images)",
        )
    for path in paths:
        with open_volume(path) as file:
            columns, shape = file["kspace"].shape[-1], getattr(file.get("mask"), "shape", None)
        found = "holds no `mask`" if shape is None else f"mask has shape {shape}"
        require(
            shape == (columns,),
            f"{path}: {found}; allowed with {key}.pass_mask: true: one number a column, shape ({columns},)",
        )


def mask_of_slice(kspace: h5py.Dataset, mask: Any, number: int) -> np.ndarray | None:
    """Return a file's mask of a slice, boolean (row, column), from one over columns, or over rows and columns.

    None if there is none that fits ``kspace``, (slice, coil, row, column) or without coils.
    """
    if not isinstance(mask, h5py.Dataset) or kspace.ndim < 3:
        return None
    inside = np.squeeze(mask[()]) != 0
    if inside.ndim > 1 and len(inside) == len(kspace):
        inside = inside[number]
    try:
        return np.broadcast_to(inside, kspace.shape[-2:])
    except ValueError:
        return None


def _is_undersampled(kspace: h5py.Dataset, mask: Any) -> bool:
    """Return whether the middle slice has samples, and none outside of its mask."""
    middle = len(kspace) // 2
    inside = mask_of_slice(kspace, mask, middle)
    if inside is None:
        return False
    sampled = kspace[middle] != 0
    return bool(sampled.any() and not inside.all() and not sampled[..., ~inside].any())
