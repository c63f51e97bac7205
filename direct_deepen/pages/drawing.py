"""Drawings by matplotlib without pyplot (no display, no global state), and images as PNG files, pixel by pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from direct_deepen.errors import require_choice
from direct_deepen.files import write_file

# ---- Figures


def blank_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches, whose parts do not overlap."""
    return Figure(figsize=(width, height), layout="constrained")


def figure_png(figure: Figure) -> bytes:
    """Return a figure as PNG file, transparent where its background is none."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=130, facecolor=figure.get_facecolor())
    return content.getvalue()


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the ending of the name asks for.

    Raises
    ------
    DeepenError
        If matplotlib does not know the format, or the file cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    require_choice(f"{path}: the ending", kind, tuple(sorted(figure.canvas.get_supported_filetypes())))
    content = BytesIO()
    figure.savefig(content, format=kind, dpi=150)
    write_file(path, content.getvalue())


def draw_image(axes: Axes, image: np.ndarray, limit: float, colours: str = "gray") -> None:
    """Draw a real image from 0 to ``limit``, in a colour map of matplotlib, without ticks or frame."""
    axes.imshow(image, cmap=colours, vmin=0.0, vmax=limit, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


@dataclass(frozen=True)
class Tile:
    """One place of a grid: an image with a note below, or the note alone.

    Attributes
    ----------
    image
        Real (row, column), or None.
    limit, colours
        As for :func:`draw_image`.
    note
        Text.
    """

    image: np.ndarray | None = None
    limit: float = 1.0
    colours: str = "gray"
    note: str = ""


def draw_tiles(rows: Sequence[Sequence[Tile]], titles: Sequence[str]) -> Figure:
    """Return a figure with rows of tiles; ``titles`` head the columns."""
    figure = blank_figure(1.9 * len(titles), 2.0 * len(rows))
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    for axes, tile in zip(grid.flat, (tile for row in rows for tile in row), strict=True):
        if tile.image is None:
            axes.set_axis_off()
            axes.text(0.5, 0.5, tile.note, ha="center", va="center", transform=axes.transAxes)
        else:
            draw_image(axes, tile.image, tile.limit, tile.colours)
            axes.set_xlabel(tile.note, fontsize=8)
    return figure


# ---- Pixels


def palette(colours: str) -> np.ndarray:
    """Return the 256 colours of a map of matplotlib from the darkest to the brightest, 8-bit integers (256, 3)."""
    return (255 * colormaps[colours](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)


def indexed_png(image: np.ndarray, limit: float, colours: str) -> bytes:
    """Return a real image (row, column) as PNG file of its own size, a byte a pixel.

    The value of a pixel is ``limit``/255 times the number of its colour in the palette of ``colours``.
    """
    indexed = Image.fromarray(np.clip(np.rint(255 * (image / limit)), 0, 255).astype(np.uint8))
    indexed.putpalette(palette(colours).tobytes())
    file = BytesIO()
    indexed.save(file, format="PNG", optimize=True)
    return file.getvalue()


def number_text(value: float) -> str:
    """Return a number as the labels of scales have it: three digits, with an exponent where it is small or large."""
    return f"{value:.3g}" if 1e-3 <= value < 1e3 else f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e+")
