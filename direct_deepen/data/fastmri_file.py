"""One volume of k-space as a file in fastMRI's HDF5 format, which DIRECT's ``FastMRIDataset`` reads unchanged."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch

from direct_deepen.errors import DeepenError, require
from direct_deepen.files import write_hdf5
from direct_deepen.physics.fourier import ifft2

AttributeValue = str | int | float
"""What an HDF5 attribute of a volume may hold."""

_HEADER = """<?xml version="1.0" encoding="utf-8"?>
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
        <minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center>
      </kspace_encoding_step_1>
      <slice><minimum>0</minimum><maximum>{last_slice}</maximum><center>{middle_slice}</center></slice>
    </encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>
"""


def ismrmrd_header(num_slices: int, rows: int, columns: int) -> str:
    """Shortest ISMRMRD header (XML) of a volume: its matrix size, and that no column of k-space is padding.

    Rows are the readout direction, the header's x; columns the phase-encoding direction, its y. fastMRI's reader takes
    columns outside ``columns // 2 - center`` and ``maximum + 1`` for padding; with these limits there are none.
    """
    return _HEADER.format(
        rows=rows,
        columns=columns,
        maximum=columns - 1,
        center=columns // 2,
        last_slice=num_slices - 1,
        middle_slice=num_slices // 2,
    )


def root_sum_of_squares(kspace: np.ndarray) -> np.ndarray:
    """Root-sum-of-squares images (slices, rows, columns), float32, of k-space (slices, coils, rows, columns)."""
    images = ifft2(torch.from_numpy(np.ascontiguousarray(kspace, dtype=np.complex64)))
    return torch.linalg.vector_norm(images, dim=1).numpy()


@contextmanager
def open_volume(path: Path) -> Iterator[h5py.File]:
    """Open a volume for reading.

    Raises
    ------
    DeepenError
        If the file cannot be read, or holds no array ``kspace``.
    """
    try:
        with h5py.File(path, "r") as file:
            shape = getattr(file.get("kspace"), "shape", ())
            require(len(shape) > 0, f"{path}: no fastMRI volume: it holds no array `kspace`")
            yield file
    except OSError as error:
        raise DeepenError(f"{path}: no fastMRI volume: {str(error).splitlines()[0]}") from error


def write_fastmri_volume(
    path: Path,
    kspace: np.ndarray,
    *,
    attributes: Mapping[str, AttributeValue] | None = None,
    datasets: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one volume in fastMRI's HDF5 format, whole or not at all.

    Until it is complete the file has another name, without the ``.h5`` that DIRECT looks for, and an older file stays.

    Parameters
    ----------
    path
        The file to write or replace.
    kspace
        Complex (slices, coils, rows, columns): fully sampled, DIRECT's centred orthonormal Fourier transform.
    attributes
        Further attributes, or other values for ``acquisition`` and ``patient_id``, which default to ``"synthetic"`` and
        the file's name.
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
    reconstruction = root_sum_of_squares(kspace)
    contents: dict[str, np.ndarray | bytes] = {
        "kspace": kspace.astype(np.complex64, copy=False),
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
    write_hdf5(path, contents.items(), labels)
