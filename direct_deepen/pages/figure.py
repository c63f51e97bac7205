"""Figures of matplotlib without pyplot: no display, no global state."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from direct_deepen.errors import require_choice
from direct_deepen.files import write_file


def blank_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches, whose parts do not overlap."""
    return Figure(figsize=(width, height), layout="constrained")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the ending of the name asks for.

    Raises
    ------
    DeepenError
        If matplotlib does not know the format, or the file cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    require_choice(f"{path}: the ending", kind, tuple(sorted(figure.canvas.get_supported_filetypes())))
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=150)
    write_file(path, content.getvalue())
