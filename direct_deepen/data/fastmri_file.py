"""Volumes of k-space as files in fastMRI's HDF5 format, which DIRECT's ``FastMRIDataset`` reads unchanged.

They are fully sampled, or were undersampled when they were measured, as fastMRI's public test set: such a file holds
``mask``, one number a column, and its k-space is zero outside of it.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from direct_deepen.errors import DeepenError, require
from direct_deepen.files import new_hdf5, open_hdf5
from direct_deepen.physics.fourier import ifft2

_logger = logging.getLogger(__name__)

POSTERIOR_FILES = ".posterior.h5"
"""How the names of posterior files end, which are no volumes."""
WITHOUT_POSTERIOR_FILES = rf"(?!.*{re.escape(POSTERIOR_FILES)}$)"
"""The ``regex_filter`` of DIRECT's datasets that leaves them out."""
_OTHER_EXTENSIONS = (".hdf5", ".hdf", ".he5", ".mat", ".mrd", ".cfl", ".npy", ".dat")

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


def is_of_macos(path: Path) -> bool:
    """Return whether a file is what macOS keeps of another one on disks that are not its own: no volume."""
    return path.name.startswith("._")


@contextmanager
def open_volume(path: Path) -> Iterator[h5py.File]:
    """Open a volume for reading; :class:`DeepenError` if it cannot be read, or holds no array ``kspace``."""
    with open_hdf5(path, "fastMRI volume") as file:
        require_kspace(path, file)
        yield file


def volume_files(folder: Path) -> list[Path]:
    """Return the files of a folder that DIRECT is to read as volumes: all ``.h5`` but posterior files.

    A :class:`DeepenError` names what is an HDF5 file but no volume, or what has another extension if there is nothing
    else. Files that cannot be opened are left to whoever reads them.
    """
    found = [
        path for path in sorted(folder.glob("*.h5")) if not (path.name.endswith(POSTERIOR_FILES) or is_of_macos(path))
    ]
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix != ".h5" and path.suffix.lower() in (".h5", *_OTHER_EXTENSIONS)
    )
    if others:
        told = f"{folder}: {others[0]} is not read for its extension; allowed: .h5"
        require(len(found) > 0, told)
        _logger.warning("%s", told)
    for path in found:
        try:
            with h5py.File(path) as file:
                require_kspace(path, file)
        except DeepenError:
            raise
        except (OSError, RuntimeError, TypeError, ValueError, LookupError):  # h5py's, of damaged files
            continue
    return found


def require_kspace(path: Path, file: h5py.File) -> None:
    """Raise :class:`DeepenError` unless a file holds an array ``kspace``."""
    raw = any(isinstance(group, h5py.Group) and {"xml", "data"} <= set(group) for group in file.values())
    found = "ISMRMRD raw data, to be sorted into `kspace` first" if raw else "it holds no array `kspace`"
    require(len(getattr(file.get("kspace"), "shape", ())) > 0, f"{path}: no fastMRI volume: {found}")


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


def require_masks_of_files(section: Any) -> None:
    """Raise :class:`DeepenError` unless files can supply the masks, where ``inference.dataset`` simulates none.

    ``section`` is that section, merged with DIRECT's defaults: no transform may change the samples of k-space.
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
            "the samples that were measured and no others (inference.crop: header crops the images)",
        )
