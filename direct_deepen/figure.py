"""Figures of matplotlib without pyplot: no display, no global state."""

from typing import TYPE_CHECKING

from direct_deepen.errors import extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank_figure(width: float, height: float) -> "Figure":
    """Return a figure of a size in inches, whose parts do not overlap.

    Raises
    ------
    DeepenError
        If matplotlib is missing.
    """
    with extra("demo", "figures need matplotlib"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")
