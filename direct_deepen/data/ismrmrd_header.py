"""What the ISMRMRD header of a volume says of its sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from direct_deepen.errors import DeepenError, require

_ROUNDING = 0.03
"""Of a header whose fields of view are rounded, as fastMRI's: pixels of images and of k-space differ by 2 %."""


@dataclass(frozen=True)
class Header:
    """What an ISMRMRD header says; None of what it does not say."""

    encoded: tuple[int, int, int] | None = None
    reconstruction: tuple[int, int, int] | None = None
    """Matrix sizes x, y, z: rows, columns, depth."""
    limits: tuple[int, int] | None = None
    """Last and central step of the phase encoding."""
    channels: int = 0
    slices: int = 0
    """Numbers of coils and of slices, zero where it does not say."""
    trajectory: str = ""
    calibration: str = ""
    """Mode of the lines for parallel imaging: ``embedded``, ``separate`` and so on."""
    lengths: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    """Fields of view of k-space and of the images, x, y, z in millimetres; zero where it does not say."""

    @property
    def has_lengths(self) -> bool:
        """Whether it says how wide rows and columns are, of k-space and of the images."""
        return min(length for lengths in self.lengths for length in lengths[:2]) > 0

    def pixels(self, rows: int, columns: int) -> tuple[int, int]:
        """Return rows and columns of the images' field of view, in pixels of k-space of that size.

        A pixel is field of view over matrix of the encoded space, so that neither images interpolated to more pixels
        nor readout oversampling matter. Zeros around k-space make pixels smaller in the same field of view. Without
        millimetres the matrix of the images is taken for their field of view.
        """
        matrix, sizes = (self.reconstruction or (rows, columns))[:2], (rows, columns)
        if not self.has_lengths:
            return matrix[0], matrix[1]
        found = []
        for whole, seen, size, encoded, images in zip(
            *self.lengths, sizes, self.encoded or sizes, matrix, strict=False
        ):
            # Who has cropped the images, and not the header, has left just that.
            shown = size if size == round(encoded * seen / whole) else round(size * seen / whole)
            found.append(images if abs(shown - images) <= _ROUNDING * images else max(1, shown))
        return found[0], found[1]

    def geometry(self, rows: int, columns: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return rows and columns of the images, and lengths of a row's, column's and slice's pixel in millimetres."""
        sizes, (_, seen) = self.pixels(rows, columns), self.lengths
        enlarged = not self.has_lengths and (sizes[0] > rows or sizes[1] > columns)
        if self.reconstruction is None or min(seen) == 0 or enlarged:
            return None
        matrix = (*sizes, self.reconstruction[2])
        return sizes, tuple(length / size for length, size in zip(seen, matrix, strict=True))


def read_header(stored: Any) -> Header:
    """Read an ISMRMRD header, with or without the namespace; a :class:`DeepenError` if it is none."""
    text = stored.item() if isinstance(stored, np.ndarray) and stored.size == 1 else stored
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise DeepenError(f"ismrmrd_header is no XML ({error}); allowed: an ISMRMRD header, or none") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]

    def numbers(place: str, names: tuple[str, ...]) -> Iterator[int]:
        for name in names:
            found = root.findtext(f"encoding/{place}/{name}")
            if found is not None:
                known = found.strip().isdecimal()
                require(known, f"{place}/{name} of ismrmrd_header is {found!r}; allowed: an integer, or no header")
                yield int(found)

    sizes = [tuple(numbers(f"{space}/matrixSize", ("x", "y", "z"))) for space in ("encodedSpace", "reconSpace")]
    lengths = [
        tuple(_length(root.findtext(f"encoding/{space}/fieldOfView_mm/{axis}")) for axis in "xyz")
        for space in ("encodedSpace", "reconSpace")
    ]
    limits = tuple(numbers("encodingLimits/kspace_encoding_step_1", ("maximum", "center")))
    channels = _number(root.findtext("acquisitionSystemInformation/receiverChannels"))
    last = _number(root.findtext("encoding/encodingLimits/slice/maximum"))
    encoded, reconstruction = ((x[0], x[1], x[2]) if len(x) == 3 else None for x in sizes)
    return Header(
        encoded,
        reconstruction,
        (limits[0], limits[1]) if len(limits) == 2 else None,
        channels,
        last + 1 if last else 0,
        (root.findtext("encoding/trajectory") or "").strip().lower(),
        (root.findtext("encoding/parallelImaging/calibrationMode") or "").strip().lower(),
        (lengths[0], lengths[1]),
    )


def _number(text: str | None) -> int:
    """Return a number that nothing rests on, or zero."""
    found = (text or "").strip()
    return int(found) if found.isdecimal() else 0


def _length(text: str | None) -> float:
    """Return a length that is finite and above zero, and else zero: many headers leave it out, or empty."""
    try:
        length = float(text or 0)
    except ValueError:
        return 0
    return length if 0 < length < float("inf") else 0
