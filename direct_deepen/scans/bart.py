"""Files of BART, the Berkeley Advanced Reconstruction Toolbox, as scans: ``.hdr`` with the sizes, ``.cfl`` the numbers.

The axes are READ, PHS1, PHS2, COIL, MAPS, TE, COEFF, COEFF2, ITER, CSHIFT, TIME, TIME2, LEVEL, SLICE, AVG, BATCH, the
first of them fastest (``misc/mri.h`` of BART). The transform is unitary and centred, as this package's.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from direct_deepen.errors import DeepenError, require
from direct_deepen.files import read_text
from direct_deepen.scans.scan import Scan, places_of

_AXES = (
    "READ", "PHS1", "PHS2", "COIL", "MAPS", "TE", "COEFF", "COEFF2", "ITER", "CSHIFT", "TIME", "TIME2", "LEVEL",
    "SLICE", "AVG", "BATCH",
)  # fmt: skip
_IMAGES = ("TE", "CSHIFT", "TIME", "TIME2", "SLICE", "BATCH")
"""Axes of which each place is an image of its own; averages are averaged."""


@contextmanager
def bart_scan(path: Path, axes: Sequence[str] | None) -> Iterator[Scan]:
    """Open a pair of files by the name of either, or without an ending; ``axes`` are BART's, so that none may be told.

    Two of READ, PHS1 and PHS2 are rows and columns. K-space is read when it is asked for.
    """
    require(
        axes is None, f"{path}: --axes is {','.join(axes or ())}; allowed with BART's files: none, as BART has its own"
    )
    array = read_cfl(path)
    sizes = dict(zip(_AXES, array.shape, strict=False))
    pixels = [name for name in _AXES[:3] if sizes[name] > 1]
    told = f"{path}: sizes are {', '.join(f'{name} {size}' for name, size in sizes.items() if size > 1) or 'all one'}"
    require(len(pixels) < 3, f"{told}; allowed: 2D, two of READ, PHS1 and PHS2 (transform a fully sampled one first)")
    require(len(pixels) == 2, f"{told}; allowed: two of READ, PHS1 and PHS2 above one")
    for name, size in sizes.items():
        allowed = (*pixels, "COIL", "AVG", *_IMAGES)
        require(size == 1 or name in allowed, f"{told}; allowed: {name} 1 (k-space has no such axis)")
    images = [name for name in _IMAGES if sizes[name] > 1]
    array = array.transpose([_AXES.index(name) for name in ("AVG", *images, "COIL", *pixels)] + _others(images, pixels))
    array = array.reshape(array.shape[: len(images) + 4])
    kspace = _Images(array, images)
    yield Scan(path, "BART", kspace, labels=kspace.labels, places=kspace.places)


def _others(images: Sequence[str], pixels: Sequence[str]) -> list[int]:
    used = {"AVG", "COIL", *images, *pixels}
    return [number for number, name in enumerate(_AXES) if name not in used]


class _Images:
    """K-space of BART as (image, coil, row, column), read slice by slice."""

    def __init__(self, array: np.ndarray, axes: Sequence[str]) -> None:
        self._array = array
        sizes = array.shape[1:-3]
        self._places = list(product(*map(range, sizes)))
        slices = [axes.index("SLICE")] if "SLICE" in axes else []
        self.places = places_of(np.array(self._places, dtype=int).reshape(len(self._places), len(axes)), slices)
        named = [zip(axes, places, strict=True) for places in self._places if axes]
        self.labels = tuple(", ".join(f"{name} {place + 1}" for name, place in pairs) for pairs in named)
        self.shape = (len(self._places), *array.shape[-3:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> np.ndarray:
        number, *coil = place if isinstance(place, tuple) else (place,)
        averages = self._array[(slice(None), *self._places[number], *coil)]
        sampled = (averages != 0).sum(axis=0)
        return np.asarray(averages.sum(axis=0) / np.maximum(sampled, 1), dtype=np.complex64)


def read_cfl(path: Path) -> np.ndarray:
    """Return the array of a pair of files, complex64 with BART's sixteen axes, mapped into memory.

    A :class:`DeepenError` if one of the two is missing, or their sizes do not agree.
    """
    header, numbers = header_of(path), header_of(path).with_suffix(".cfl")
    require(numbers.is_file(), f"{numbers}: no such file; allowed: .hdr and .cfl side by side")
    lines = [line for line in read_text(header).splitlines() if line.strip()]
    try:
        place = next(number for number, line in enumerate(lines) if line.strip() == "# Dimensions")
        sizes = [int(word) for word in lines[place + 1].split()]
    except (StopIteration, ValueError, IndexError) as error:
        raise DeepenError(f"{header}: no header of BART; allowed: `# Dimensions` and a line of integers") from error
    sizes += [1] * (len(_AXES) - len(sizes))
    expected, found = 8 * math.prod(sizes), numbers.stat().st_size
    require(
        len(sizes) == len(_AXES) and min(sizes) > 0 and found == expected,
        f"{numbers}: has {found} bytes; allowed with the sizes {sizes} of its header: {expected}",
    )
    return np.memmap(numbers, dtype=np.complex64, mode="r", shape=tuple(sizes), order="F")


def header_of(path: Path) -> Path:
    """Return the ``.hdr`` file of a pair of which either is named, or what is before their endings."""
    return path.with_suffix(".hdr") if path.suffix in (".cfl", ".hdr") else path.with_name(f"{path.name}.hdr")
