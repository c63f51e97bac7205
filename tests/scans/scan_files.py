"""Files of k-space, (slice, coil, row, column), in the formats that are read, written by their own libraries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from scipy.io import savemat

from direct_deepen.data.fastmri_file import ismrmrd_header


def write_fastmri(path: Path, kspace: np.ndarray, mask: np.ndarray | None = None, header: str | None = None) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file["ismrmrd_header"] = (header or ismrmrd_header(len(kspace), *kspace.shape[-2:])).encode()
        if mask is not None:
            file["mask"] = mask
    return path


def write_bart(path: Path, kspace: np.ndarray, axes: str = "SLICE COIL READ PHS1") -> Path:
    """Write a pair of files; ``axes`` says what those of the array are."""
    places = {"READ": 0, "PHS1": 1, "PHS2": 2, "COIL": 3, "MAPS": 4, "TE": 5, "TIME": 10, "SLICE": 13, "AVG": 14}
    sizes = [1] * 16
    for name, size in zip(axes.split(), kspace.shape, strict=True):
        sizes[places[name]] = size
    order = sorted(range(kspace.ndim), key=lambda axis: places[axes.split()[axis]])
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, sizes))} \n")
    kspace.astype(np.complex64).transpose(order).ravel(order="F").tofile(path.with_suffix(".cfl"))
    return path


def write_mat(path: Path, kspace: np.ndarray, **others: np.ndarray) -> Path:
    savemat(path, {"kspace": kspace.transpose(2, 3, 1, 0), **others})
    return path


def write_mat_73(path: Path, kspace: np.ndarray) -> Path:
    """Write as MATLAB does: HDF5 after 512 bytes of its own, axes the other way round, numbers of two fields."""
    with h5py.File(path, "w", userblock_size=512) as file:
        array = kspace.transpose(2, 3, 1, 0).T
        pairs = np.zeros(array.shape, [("real", "<f4"), ("imag", "<f4")])
        pairs["real"], pairs["imag"] = array.real, array.imag
        file["kspace"] = pairs
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    return path


def mrd_header(
    rows: int, columns: int, *, oversampling: int = 1, field_of_view: tuple[float, float, float] = (0, 0, 0),
    trajectory: str = "cartesian", calibration: str = "", depth: int = 1, centre: int | None = None,
) -> str:  # fmt: skip
    """A header of ISMRMRD; ``field_of_view`` is that of the images, millimetres along rows, columns and slice."""
    x, y, z = field_of_view

    def space(name: str, size: int, length: float) -> str:
        lengths = f"<fieldOfView_mm><x>{length}</x><y>{y}</y><z>{z}</z></fieldOfView_mm>" if x else ""
        matrix = f"<matrixSize><x>{size}</x><y>{columns}</y><z>{depth}</z></matrixSize>"
        return f"<{name}>{matrix}{lengths}</{name}>"

    middle = columns // 2 if centre is None else centre
    mode = f"<parallelImaging><calibrationMode>{calibration}</calibrationMode></parallelImaging>" if calibration else ""
    return f"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
    {space("encodedSpace", rows * oversampling, x * oversampling)}{space("reconSpace", rows, x)}
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{middle + columns - columns // 2 - 1}</maximum>
    <center>{middle}</center></kspace_encoding_step_1></encodingLimits>
    <trajectory>{trajectory}</trajectory>{mode}</encoding></ismrmrdHeader>"""


def acquisition(samples: np.ndarray, flags: tuple[str, ...] = (), **head: Any) -> ismrmrd.Acquisition:
    """A readout, complex (coil, sample); names of ``head`` are those of its header, or of its counters."""
    found = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples, dtype=np.complex64))
    found.center_sample = samples.shape[1] // 2
    found.sample_time_us = 5.0
    for flag in flags:
        found.setFlag(getattr(ismrmrd, f"ACQ_{flag}"))
    for name, value in head.items():
        if hasattr(found.idx, name):
            setattr(found.idx, name, value)
        elif isinstance(value, tuple):
            getattr(found, name)[:] = value
        else:
            setattr(found, name, value)
    return found


def write_mrd(path: Path, acquisitions: list[ismrmrd.Acquisition], header: str) -> Path:
    with ismrmrd.Dataset(str(path), mode="w") as file:
        file.write_xml_header(header.encode())
        for found in acquisitions:
            file.append_acquisition(found)
    return path


def lines_of(
    kspace: np.ndarray, columns: Mapping[int, Any] | list[int] | None = None, **head: Any
) -> list[ismrmrd.Acquisition]:
    """All lines of k-space, (slice, coil, row, column), or some of its columns."""
    chosen = range(kspace.shape[-1]) if columns is None else columns
    return [
        acquisition(kspace[number, :, :, column], kspace_encode_step_1=column, slice=number, **head)
        for number in range(len(kspace))
        for column in chosen
    ]
