"""Arrays of NumPy and MATLAB as scans: the axes are those that are told, or usual."""

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from direct_deepen.errors import DeepenError, first_line, require
from direct_deepen.files import open_hdf5
from direct_deepen.scans.scan import Scan, in_order

_OF_NUMPY = {2: ("row", "column"), 3: ("coil", "row", "column"), 4: ("slice", "coil", "row", "column")}
_OF_MATLAB = {number: axes[-2:] + axes[-3::-1] for number, axes in _OF_NUMPY.items()}
"""Usual axes by their number: MATLAB's users have the pixels first."""

_TRAJECTORIES = ("trajectory", "traj", "coord", "coords")
"""Names of positions in cycles a pixel."""
_NAMES = ("kspace", "ksp", "k_space")
"""Names of k-space among several arrays of a file."""
_NOISE = ("noise", "noise_covariance")
_OTHERS = ("mask", *_NOISE)
"""What else may be there."""


@contextmanager
def numpy_scan(path: Path, axes: Sequence[str] | None) -> Iterator[Scan]:
    """Open a ``.npy`` or ``.npz`` file: axes ([slice,] coil, row, column), or (row, column), unless others are told."""
    try:
        content: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, np.ndarray):
            arrays = {"kspace": content}
        else:
            with content:
                arrays = dict(content)
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise DeepenError(f"{path}: no array of NumPy: {first_line(error)}") from error
    yield _scan(path, "NumPy", arrays, axes, _OF_NUMPY)


@contextmanager
def matlab_scan(path: Path, axes: Sequence[str] | None) -> Iterator[Scan]:
    """Open a ``.mat`` file up to version 7: axes (row, column[, coil[, slice]]) unless others are told."""
    try:
        arrays = loadmat(path)
    except (OSError, ValueError, TypeError, LookupError, MatReadError, NotImplementedError, MemoryError) as error:
        raise DeepenError(f"{path}: no .mat file: {first_line(error)}") from error
    yield _scan(path, "MATLAB", arrays, axes, _OF_MATLAB)


@contextmanager
def matlab_hdf5_scan(path: Path, axes: Sequence[str] | None) -> Iterator[Scan]:
    """Open a ``.mat`` file of version 7.3, which is HDF5 with the axes the other way round."""
    with open_hdf5(path, ".mat file") as file:
        arrays = {name: _complex(entry[()]).T for name, entry in file.items() if isinstance(entry, h5py.Dataset)}
    yield _scan(path, "MATLAB 7.3", arrays, axes, _OF_MATLAB)


def _complex(array: np.ndarray) -> np.ndarray:
    pairs = set(array.dtype.names or ()) == {"real", "imag"}
    return array["real"] + 1j * array["imag"] if pairs else array


def _scan(
    path: Path,
    kind: str,
    arrays: Mapping[str, Any],
    axes: Sequence[str] | None,
    usual: Mapping[int, Sequence[str]],
) -> Scan:
    positions = [name for name in arrays if name.lower() in _TRAJECTORIES]
    if positions:
        require(axes is None, f"{path}: --axes is {','.join(axes or ())}; allowed with a trajectory: none")
        samples = {key: value for key, value in arrays.items() if key not in positions}
        noise: dict[str, Any] = {key: np.asarray(arrays[key]) for key in _NOISE if key in arrays}
        scan = Scan(path, kind, samples[_name_of_kspace(path, samples)], **noise)
        return with_trajectory(scan, np.asarray(arrays[positions[0]]))
    name = _name_of_kspace(path, arrays)
    array = arrays[name]
    known = axes if axes is not None else usual.get(array.ndim, ())
    require(
        len(known) > 0,
        f"{path}: {name} has the shape {array.shape}; allowed: two to four axes, of slice, coil, row and column",
    )
    ordered = in_order(array, known, f"{path}: {name}")
    matlab = usual is _OF_MATLAB
    others: dict[str, Any] = {key: _two(arrays[key], key, matlab=matlab) for key in _OTHERS if key in arrays}
    return Scan(path, f"{kind}, axes {', '.join(known)}", ordered, **others)


def with_trajectory(scan: Scan, trajectory: np.ndarray) -> Scan:
    """Return a scan of samples, complex ([slice,] coil, …), at the positions of a trajectory, (…, 2) or complex (…).

    A complex position is x + iy, along columns and rows. A :class:`DeepenError` if they do not belong together.
    """
    if np.iscomplexobj(trajectory):
        trajectory = np.stack([trajectory.imag, trajectory.real], axis=-1)
    stored = np.asarray(scan.kspace[:])
    # Of arrays of fewer axes, read as pixels of one coil or slice.
    while stored.ndim > 1 and len(stored) == 1:
        stored = stored[0]
    shape, count = stored.shape, math.prod(trajectory.shape[:-1])
    require(
        trajectory.ndim >= 2 and trajectory.shape[-1] == 2,
        f"{scan.path}: trajectory has the shape {trajectory.shape}; allowed: (…, 2), or complex",
    )
    axes = next((n for n in range(1, len(shape)) if math.prod(shape[n:]) == count), None)
    require(
        axes in (1, 2) or (axes is None and math.prod(shape) == count),
        f"{scan.path}: kspace has the shape {shape}, and the trajectory {count} positions; allowed: (coil, sample) or "
        "(slice, coil, sample), with as many samples",
    )
    leading = shape[:axes] if axes is not None else ()
    whole = stored.reshape((1,) * (2 - len(leading)) + leading + (count,))
    return replace(scan, kind=f"{scan.kind}, with a trajectory", kspace=whole, trajectory=trajectory)


def _two(array: Any, name: str, *, matlab: bool) -> np.ndarray:
    """Return an array without the axes of length one that MATLAB adds; a mask of slices has these first."""
    found = np.squeeze(np.asarray(array)) if matlab else np.asarray(array)
    return found.transpose(2, 0, 1) if matlab and name == "mask" and found.ndim == 3 else found


def _name_of_kspace(path: Path, arrays: Mapping[str, Any]) -> str:
    """Return the array that is named as k-space, or the only one that is complex."""
    named = [name for name in arrays if name.lower() in _NAMES]
    numbers = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray) and name not in _OTHERS}
    found = named or [name for name, array in numbers.items() if np.iscomplexobj(array)]
    told = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in numbers.items()) or "nothing"
    require(len(found) == 1, f"{path}: holds {told}; allowed: one complex array, or one named {' or '.join(_NAMES)}")
    return found[0]


def read_positions(path: Path) -> np.ndarray:
    """Read the positions of a trajectory, real (…, 2) or complex, of an ``.npy`` file."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DeepenError(f"{path}: no array of NumPy: {first_line(error)}") from error
