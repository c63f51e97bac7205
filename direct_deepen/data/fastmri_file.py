"""Volumes of k-space as files in fastMRI's HDF5 format, which DIRECT's ``FastMRIDataset`` reads unchanged.

They are fully sampled, or were undersampled when they were measured, as fastMRI's public test set: such a file holds
``mask``, one number a column, and its k-space is zero outside of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from direct_deepen.errors import require
from direct_deepen.files import new_hdf5, open_hdf5
from direct_deepen.physics.fourier import ifft2

_RESAMPLING = (("cropping", "crop"), ("augmentation", "rescale"), ("augmentation", "pad"))
"""Transforms of DIRECT after which k-space has samples between those that were measured."""


def ismrmrd_header(num_slices: int, rows: int, columns: int) -> str:
    """Shortest ISMRMRD header (XML) of a volume: its matrix size, and that no column of k-space is padding.

    Rows are the readout direction, the header's x; columns the phase-encoding direction, its y. fastMRI's reader takes
    columns outside ``columns // 2 - center`` and ``maximum + 1`` for padding; with these limits there are none.
    """
    return f"""<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <encoding>
    <encodedSpace>
      <matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
    </reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1>
        <minimum>0</minimum><maximum>{columns - 1}</maximum><center>{columns // 2}</center>
      </kspace_encoding_step_1>
      <slice><minimum>0</minimum><maximum>{num_slices - 1}</maximum><center>{num_slices // 2}</center></slice>
    </encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>
"""


@contextmanager
def open_volume(path: Path) -> Iterator[h5py.File]:
    """Open a volume for reading; :class:`DeepenError` if it cannot be read, or holds no array ``kspace``."""
    with open_hdf5(path, "fastMRI volume") as file:
        shape = getattr(file.get("kspace"), "shape", ())
        require(len(shape) > 0, f"{path}: no fastMRI volume: it holds no array `kspace`")
        yield file


def write_fastmri_volume(
    path: Path,
    kspace: np.ndarray,
    *,
    attributes: Mapping[str, str | int | float] | None = None,
    datasets: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one volume in fastMRI's HDF5 format, whole or not at all, with its root-sum-of-squares images.

    Until it is complete the file has another name, without the ``.h5`` that DIRECT looks for, and an older file stays.

    Parameters
    ----------
    kspace
        Complex (slices, coils, rows, columns): fully sampled, DIRECT's centred orthonormal Fourier transform.
    attributes
        Further attributes, or other values for ``acquisition`` (``"synthetic"``) and ``patient_id`` (the file's name).
    datasets
        Further arrays, which ``FastMRIDataset`` does not look at.

    Raises
    ------
    DeepenError
        If ``kspace`` has another number of dimensions, no sample, is not complex, or holds a value that is not finite,
        or the file cannot be written.
    """
    require(
        kspace.ndim == 4 and kspace.size > 0 and np.iscomplexobj(kspace),
        f"kspace has shape {kspace.shape} and type {kspace.dtype}; allowed: complex (slices, coils, rows, columns)",
    )
    require(bool(np.isfinite(kspace).all()), "kspace holds a value that is not finite; allowed: finite numbers")
    num_slices, _, rows, columns = kspace.shape
    kspace = np.ascontiguousarray(kspace, dtype=np.complex64)
    reconstruction = torch.linalg.vector_norm(ifft2(torch.from_numpy(kspace)), dim=1).numpy()
    contents: dict[str, np.ndarray | bytes] = {
        "kspace": kspace,
        "reconstruction_rss": reconstruction,
        "ismrmrd_header": ismrmrd_header(num_slices, rows, columns).encode(),
        **(datasets or {}),
    }
    labels = {
        "acquisition": "synthetic",
        "patient_id": path.stem,
        "max": float(reconstruction.max()),
        "norm": float(np.linalg.norm(reconstruction)),
        **(attributes or {}),
    }
    with new_hdf5(path) as file:
        file.attrs.update(labels)
        for name, content in contents.items():
            file[name] = content


# ---- Volumes that were undersampled when they were measured


def require_fully_sampled(path: Path) -> None:
    """Raise :class:`DeepenError` unless a volume can be read and is not undersampled already."""
    with open_volume(path) as file:
        require(
            not _is_undersampled(file["kspace"], file.get("mask")),
            f"{path}: undersampled already: its k-space is zero outside its `mask`; allowed: fully sampled volumes, as "
            "references and simulated masks need them (`direct predict` takes it with inference.dataset.pass_mask: "
            "true and inference.dataset.transforms.masking: null)",
        )


def _is_undersampled(kspace: h5py.Dataset, mask: Any) -> bool:
    """Return whether the middle slice of k-space, (slice, [coil,] row, column), has samples, all inside its mask.

    A mask is one over columns, or over rows and columns, for every slice or all of them; any other counts as none.
    """
    if not isinstance(mask, h5py.Dataset) or kspace.ndim < 3:
        return False
    middle, inside = len(kspace) // 2, np.squeeze(mask[()]) != 0
    if inside.ndim > 1 and len(inside) == len(kspace):
        inside = inside[middle]
    try:
        inside = np.broadcast_to(inside, kspace.shape[-2:])
    except ValueError:
        return False
    sampled = kspace[middle] != 0
    return bool(sampled.any() and not inside.all() and not sampled[..., ~inside].any())


def require_masks_of_files(section: Any, paths: Iterable[Path]) -> None:
    """Raise :class:`DeepenError` unless the files can supply the masks, where ``inference.dataset`` simulates none.

    ``section`` is that section, merged with DIRECT's defaults. Every file needs a mask over its columns, and no
    transform may change the columns.
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
