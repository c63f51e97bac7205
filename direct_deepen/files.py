"""Atomic writes: a file is complete or absent, whatever interrupts the writing of it."""

import errno
import fcntl
import glob
import io
import mmap
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import h5py

from direct_deepen.errors import DeepenError, first_line, require

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_HEAP = b"GCOL\1\0\0\0"
_FORBIDDEN = (errno.EACCES, errno.EPERM)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it; a reader finds the old one or the new one, never half of it.

    :class:`DeepenError` if the disk is full or read-only, or there is a file in place of a folder.
    """
    with _replacement(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """Let a file be written under another name, which becomes its own if the context ends well; else it is removed."""
    # Named by process: two may write the same file at once.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
            if _is_stale(part.name.split(".")[-2]):
                part.unlink(missing_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DeepenError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a file of text as UTF-8; errors are those of :func:`write_file`."""
    write_file(path, text.encode())


def read_text(path: Path) -> str:
    """Read a file of text; a :class:`DeepenError` if it is missing or no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeepenError(f"{path}: cannot be read as text: {first_line(error)}") from error


@contextmanager
def interrupt_waits() -> Iterator[None]:
    """Let Ctrl-C wait until the end of what is short, and would leave half a file or an error of another kind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[object] = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def new_hdf5(path: Path, *, large: bool = False) -> Iterator[h5py.File]:
    """Write what this context puts into an HDF5 file; errors are those of :func:`write_file`.

    What is ``large`` is not gathered in memory; errors of the disk are raised when the file is flushed, at the latest
    at the end.
    """
    if large:
        with _replacement(path) as temporary, temporary.open("w+b", buffering=0) as stream, _OnDisk(stream) as file:
            yield file
        return
    # In memory first: HDF5 crashes (segmentation fault) if the disk is full when it closes a file.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        yield file
    write_file(path, content.getvalue())


class _OnDisk(h5py.File):
    """A new file of HDF5, which raises errors of the disk when flushed or closed: within HDF5 they may crash."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = _Stream(stream)
        super().__init__(self._stream, "w")

    def flush(self) -> None:
        """Write what is in memory."""
        super().flush()
        self._stream.require_written()

    def close(self) -> None:
        """Write what is in memory, and close the file."""
        super().close()
        self._stream.require_written()


class _Stream:
    """A file that remembers errors of writing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: memoryview) -> int:
        left = content
        try:
            while len(left) > 0:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = self._error or error
        return len(content)

    def truncate(self, size: int) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
        return size

    def require_written(self) -> None:
        if self._error is not None:
            raise self._error


@contextmanager
def open_hdf5(path: Path, what: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; errors of reading, within the context too, say that it is no ``what``."""
    try:
        _require_sound_heaps(path, what)
        with h5py.File(path, "r") as file:
            yield file
    except DeepenError:
        raise
    except (
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        LookupError,
        MemoryError,
    ) as error:  # h5py's, of damaged files
        raise DeepenError(f"{path}: no {what}: {first_line(error)}") from error


def _require_sound_heaps(path: Path, what: str) -> None:
    """Refuse a file in whose heaps of texts HDF5 2.0 would go round for ever: where an object of no number has no size.

    A heap has a head of 16 bytes (signature, version, size), and objects of 16 bytes (number, size) and their content,
    filled up to eight; what has the number zero is the rest (HDF5 file format specification, III.E). Searching half a
    gigabyte takes a quarter of a second.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        first = content.find(_HEAP)
        while first >= 0:
            end = min(len(content), first + int.from_bytes(content[first + 8 : first + 16], "little"))
            place = first + 16
            while place + 16 <= end:
                number = int.from_bytes(content[place : place + 2], "little")
                size = int.from_bytes(content[place + 8 : place + 16], "little")
                require(number > 0 or size > 0, f"{path}: no {what}: damaged, by zeros at byte {place}")
                place += size if number == 0 else 16 + -(-size // 8) * 8
            first = content.find(_HEAP, first + 1)


def require_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise :class:`DeepenError` if what is written is what is read, a file or a folder, by whatever name or link.

    The system compares them: links, relative paths and, where it takes no notice of it, case make no difference.
    """
    read = {_identity(path): path for path in inputs if path.exists()}
    for path in outputs:
        found = read.get(_identity(path)) if path.exists() else None
        if found is not None:
            same = "" if found == path else f", which is {found}"
            raise DeepenError(f"{path}{same}: is read, and would be written to; allowed: an output apart from it")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def locked_folder(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes that do ``what`` from a folder; :class:`DeepenError` if one is at it.

    The system lets go of the lock when a process ends, however it ends.
    """
    path = folder / f".{what.replace(' ', '-')}.lock"
    with disk_errors_reported(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = _lock(path, f"{folder}: another `{what}` writes there")
    if file is None:
        yield
        return
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path, taken: str) -> IO[str] | None:
    """Return a file that is open and locked, with the number of this process in it; None where no file can be."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            # Not `flock`, which processes inherit that load data, and may outlive this one.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with file:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    return None
                file.seek(0)
                holder = file.read().strip()
            raise DeepenError(
                f"{taken} ({holder or 'unknown'}); allowed: another folder, or when it has ended"
            ) from error
        # The one before may have removed it in between.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file
        file.close()


def remove_stale_folders(folder: Path, prefix: str) -> None:
    """Remove folders named ``prefix``, a process number and more, of processes that have ended."""
    for path in folder.glob(f"{glob.escape(prefix)}*"):
        if _is_stale(path.name.removeprefix(prefix).partition("-")[0]):
            shutil.rmtree(path, ignore_errors=True)


def _is_stale(process: str) -> bool:
    """Return whether a text is the number of a process that has ended."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (ValueError, PermissionError):
        pass  # It is no number, or the process runs as another user.
    return False


@contextmanager
def disk_errors_reported(path: Path) -> Iterator[None]:
    """Turn errors of the disk within this context, for writing by other means than this module's, into DeepenErrors.

    They are those of a disk that is full or read-only, and of permission that is denied, also where another exception
    was raised because of that. The message names the file, or else ``path``, and the reason.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not (isinstance(cause, OSError) and cause.errno in (*_DISK_FULL, *_FORBIDDEN)):
            cause = cause.__cause__ or cause.__context__
        if not isinstance(cause, OSError):
            raise
        # Permission may also be denied for reading.
        action = "written" if cause.errno in _DISK_FULL else "opened"
        raise DeepenError(f"{cause.filename or path}: cannot be {action}: {cause.strerror}") from error
