"""Open a file by what is in it, whatever its name."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import h5py

from direct_deepen.errors import DeepenError, first_line, require
from direct_deepen.files import open_hdf5
from direct_deepen.scans.arrays import matlab_hdf5_scan, matlab_scan, numpy_scan
from direct_deepen.scans.bart import bart_scan, header_of
from direct_deepen.scans.fastmri import fastmri_scan
from direct_deepen.scans.mrd import is_mrd, mrd_scan
from direct_deepen.scans.scan import Scan

FORMATS = (
    "fastMRI's HDF5, ISMRMRD (MRD), BART's .cfl with .hdr, .npy, .npz, .mat (scanners' own files become ISMRMRD by "
    "siemens_to_ismrmrd, ge_to_ismrmrd, philips_to_ismrmrd or bruker_to_ismrmrd)"
)
_HDF5, _HDF5_AT = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048)
_IMAGES = {0: (b"\x89PNG", b"\xff\xd8\xff"), 128: (b"DICM",), 344: (b"n+1\0", b"ni1\0")}
"""What files of images have at a place."""


@contextmanager
def open_scan(path: Path, axes: Sequence[str] | None = None) -> Iterator[Scan]:
    """Open a scanner's file for reading, of any of :data:`FORMATS`, told by its content.

    ``axes`` are the names of an array's axes, of slice, coil, row and column, where they are not the usual ones.

    Raises
    ------
    DeepenError
        If there is no such file, its format is none of these, or it cannot be read.
    """
    try:
        with _reader(path)(path, axes) as scan:
            yield scan
    except OSError as error:
        # Of HDF5, when it comes to a damaged part.
        raise DeepenError(f"{path}: cannot be read: {first_line(error)}") from error


type _Reader = Callable[[Path, Sequence[str] | None], AbstractContextManager[Scan]]


def _reader(path: Path) -> _Reader:
    if path.suffix in (".cfl", ".hdr") or (not path.exists() and header_of(path).is_file()):
        return bart_scan
    require(path.exists(), f"{path}: no such file")
    require(path.is_file(), f"{path}: a folder; allowed: a file, {FORMATS}")
    with path.open("rb") as file:
        start = file.read(max(_HDF5_AT) + len(_HDF5))
    if any(start[place:].startswith(_HDF5) for place in _HDF5_AT):
        return _hdf5_reader(path, of_matlab=start.startswith(b"MATLAB"))
    if start.startswith(b"MATLAB"):
        return matlab_scan
    if start.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        return numpy_scan
    require(start != b"", f"{path}: is empty; allowed: {FORMATS}")
    images = any(start[place:].startswith(signs) for place, signs in _IMAGES.items())
    found = "is a file of images, not of k-space" if images else "unknown format"
    raise DeepenError(f"{path}: {found}; allowed: {FORMATS}")


def _hdf5_reader(path: Path, *, of_matlab: bool) -> _Reader:
    with open_hdf5(path, "file of HDF5") as file:
        if is_mrd(file):
            return mrd_scan
        if of_matlab:
            return matlab_hdf5_scan
        names = ", ".join(file) or "nothing"
        found = f"{path}: holds {names}"
        require(isinstance(file.get("kspace"), h5py.Dataset), f"{found}; allowed: `kspace`, or raw data of ISMRMRD")
    return fastmri_scan
