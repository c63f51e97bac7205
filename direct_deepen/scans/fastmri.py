"""FastMRI's HDF5 files as scans: fully sampled, or undersampled with or without their mask."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from direct_deepen.data.fastmri_file import open_volume
from direct_deepen.errors import require
from direct_deepen.scans.scan import Scan, in_order

_ARRAYS = ("noise", "noise_covariance")


@contextmanager
def fastmri_scan(path: Path, axes: Sequence[str] | None) -> Iterator[Scan]:
    """Open a file with ``kspace``, (slice, coil, row, column) or (slice, row, column) unless other axes are told."""
    with open_volume(path):
        pass
    # What goes wrong while it is open is not always the file's fault.
    with h5py.File(path, "r") as file:
        kspace = file["kspace"]
        if axes is not None:
            require(kspace.dtype.kind == "c", f"{path}: kspace has type {kspace.dtype}; allowed with --axes: complex")
            kspace = in_order(kspace[()], axes, f"{path}: kspace")
        present = [name for name in _ARRAYS if isinstance(file.get(name), h5py.Dataset)]
        known: dict[str, Any] = {name: np.asarray(file[name]) for name in present}
        header = file.get("ismrmrd_header")
        yield Scan(
            path,
            "fastMRI",
            kspace,
            mask=file.get("mask"),
            header=None if header is None else header[()],
            **known,
        )
