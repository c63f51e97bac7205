"""Images on a scale of brightness, and how they become PNG files."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from PIL import Image


@dataclass(frozen=True)
class Panel:
    """Images of one kind, one a slice, all on one scale of brightness.

    Attributes
    ----------
    title
        What they show.
    images
        Real (slice, row, column), zero or above.
    limit
        Value above zero that is shown as the brightest; so is what lies above it.
    colours
        Name of a colour map of matplotlib.
    """

    title: str
    images: np.ndarray
    limit: float
    colours: str = "gray"


def number_text(value: float) -> str:
    """Return a number as the labels of scales have it: three digits, with an exponent where it is small or large."""
    return f"{value:.3g}" if 1e-3 <= value < 1e3 else f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e+")


def palette(colours: str) -> np.ndarray:
    """Return the 256 colours of a map of matplotlib from the darkest to the brightest, 8-bit integers (256, 3)."""
    return (255 * colormaps[colours](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)


def indexed_png(image: np.ndarray, limit: float, colours: str) -> bytes:
    """Return an image as PNG file of its own size, a byte a pixel.

    Parameters
    ----------
    image
        Real (row, column).
    limit, colours
        As for :class:`Panel`; the value of a pixel is ``limit``/255 times the number of its colour in the palette.
    """
    numbers = np.clip(np.rint(255 * (image / limit)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(numbers)
    picture.putpalette(palette(colours).tobytes())
    file = BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
