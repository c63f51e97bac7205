"""Drawings by matplotlib without pyplot (no display, no global state), and images as PNG files, pixel by pixel."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from direct_deepen.errors import require_choice
from direct_deepen.files import write_file

MOST_UNCERTAIN = 0.995
"""The quantile of errors and standard deviations that is shown as the brightest."""


def blank_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches, whose parts do not overlap."""
    return Figure(figsize=(width, height), layout="constrained")


def figure_file(figure: Figure, kind: str = "png", dpi: int = 130) -> bytes:
    """Return a figure as a file of a format of matplotlib, transparent where its background is none."""
    content = BytesIO()
    figure.savefig(content, format=kind, dpi=dpi)
    return content.getvalue()


def write_figure(figure: Figure, path: Path) -> Figure:
    """Write a figure in the format that the ending of the name asks for, and return it."""
    kind = path.suffix.removeprefix(".").lower()
    require_choice(f"{path}: the ending", kind, tuple(sorted(figure.canvas.get_supported_filetypes())))
    write_file(path, figure_file(figure, kind, dpi=150))
    return figure


def draw_image(axes: Axes, image: np.ndarray, limit: float, colours: str = "gray") -> None:
    """Draw a real image from 0 to ``limit``, in a colour map of matplotlib, without ticks or frame."""
    axes.imshow(image, cmap=colours, vmin=0.0, vmax=limit, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def brightness_limit(images: Iterable[ArrayLike], quantile: float) -> float:
    """Return a quantile of all pixels of images, or 1 for images that are zero there."""
    limit = float(np.quantile(np.concatenate([np.ravel(image) for image in images]), quantile))
    return limit if limit > 0 else 1.0


def palette(colours: str) -> np.ndarray:
    """Return the 256 colours of a map of matplotlib from the darkest to the brightest, 8-bit integers (256, 3)."""
    return (255 * colormaps[colours](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)


def indexed_png(image: np.ndarray, limit: float, colours: str) -> bytes:
    """Return a real image (row, column) as PNG file of its own size, a byte a pixel.

    The value of a pixel is ``limit``/255 times the number of its colour in the palette of ``colours``.
    """
    indexed = Image.fromarray(np.clip(np.rint(255 * (image / limit)), 0, 255).astype(np.uint8))
    indexed.putpalette(palette(colours).tobytes())
    content = BytesIO()
    indexed.save(content, format="PNG", optimize=True)
    return content.getvalue()


def number_text(value: float) -> str:
    """Return a number as the labels of scales have it: three digits, with an exponent where it is small or large."""
    return f"{value:.3g}" if 1e-3 <= value < 1e3 else f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e+")
