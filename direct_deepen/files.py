"""Files that are whole or not there, whatever happens while they are written."""

import errno
import glob
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from direct_deepen.errors import DeepenError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What a disk says that takes no more, or nothing."""
_FORBIDDEN = (errno.EACCES, errno.EPERM)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it; a reader finds the old one or the new one, never half of it.

    Raises
    ------
    DeepenError
        If it cannot be written: the disk is full or read-only, or there is a file where a folder is to be.
    """
    # Named by process: two may write the same file at once.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_overs(path)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DeepenError(f"{path}: cannot be written: {error.strerror or error}") from error


def _remove_left_overs(path: Path) -> None:
    """Remove what processes that were killed had written of a file."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        process = part.name.split(".")[-2]
        if process.isdigit() and not _runs(int(process)):
            part.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def require_room(folder: Path, sizes: Iterable[int]) -> None:
    """Try whether files of these sizes in bytes can be written to a folder; none of them is left there.

    For files that others write, and fail at in ways that cannot be caught: HDF5 ends the process.

    Raises
    ------
    DeepenError
        If they cannot.
    """
    tried: list[Path] = []
    try:
        for number, size in enumerate(sizes):
            _remove_left_overs(folder / f".room.{number}")
            path = folder / f".room.{number}.{os.getpid()}.part"
            tried.append(path)
            with path.open("wb") as file:
                if size > 0:
                    os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        # File systems that know no such trial say so by other errors.
        if error.errno in (*_FULL, *_FORBIDDEN):
            raise DeepenError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        for path in tried:
            path.unlink(missing_ok=True)


def remove_left_over_folders(folder: Path, prefix: str) -> None:
    """Remove folders named ``prefix``, a process's number and more, where that process does not run any more."""
    for path in folder.glob(f"{glob.escape(prefix)}*"):
        process = path.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not _runs(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file of text as UTF-8; errors are those of :func:`write_file`."""
    write_file(path, text.encode())


def write_hdf5(path: Path, datasets: Iterable[tuple[str, np.ndarray | bytes]], attributes: Mapping[str, Any]) -> None:
    """Write datasets by name, taken one after another, and attributes; errors are those of :func:`write_file`."""
    # In memory first: HDF5 ends the process (segmentation fault) where it closes a file and the disk is full.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs.update(attributes)
        for name, array in datasets:
            file.create_dataset(name, data=array)
    write_file(path, content.getvalue())


@contextmanager
def refusals_told(path: Path) -> Iterator[None]:
    """Write within this context by other means than this module's.

    Raises
    ------
    DeepenError
        If the disk refused, or the user may not open a file, or whatever else was raised because of that; it names
        the file, or ``path``, and the reason.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        refusal = _refusal_of(error)
        if refusal is None:
            raise
        # Who may not, may not have been reading.
        what = "written" if refusal.errno in _FULL else "opened"
        raise DeepenError(f"{refusal.filename or path}: cannot be {what}: {refusal.strerror}") from error


def _refusal_of(error: BaseException | None) -> OSError | None:
    """Return the refusal that an exception is, was raised from, or was raised while handling."""
    while error is not None and not (isinstance(error, OSError) and error.errno in (*_FULL, *_FORBIDDEN)):
        error = error.__cause__ or error.__context__
    return error
