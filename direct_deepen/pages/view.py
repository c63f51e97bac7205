"""A view: panels side by side, to go through slice by slice, with what there is to say of every slice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from direct_deepen.errors import require
from direct_deepen.pages.drawing import blank_figure, draw_image, indexed_png, number_text, write_figure
from direct_deepen.pages.region_samples import RegionSamples

PANELS_A_ROW = 5


@dataclass(frozen=True)
class Panel:
    """Images of one kind, real (slice, row, column), zero or above, all on one scale of brightness.

    Values of ``limit``, above zero, and more are shown as the brightest; it is None if :meth:`png` returns a drawing,
    whose pixels are not those of ``images``. ``colours`` names a colour map of matplotlib.
    """

    title: str
    images: np.ndarray
    limit: float | None
    colours: str = "gray"
    width: ClassVar[float] = 1.9
    """In a figure, inches."""

    def png(self, number: int) -> bytes:
        """Return a slice as PNG file, a pixel a pixel."""
        assert self.limit is not None
        return indexed_png(self.images[number], self.limit, self.colours)

    def draw(self, axes: Axes, number: int) -> None:
        """Draw a slice with its scale of brightness."""
        assert self.limit is not None
        draw_image(axes, self.images[number], self.limit, self.colours)
        axes.set_title(self.title, fontsize=9)
        bar = axes.figure.colorbar(axes.images[0], ax=axes, location="bottom", fraction=0.05, pad=0.02)
        bar.set_ticks([0.0, self.limit], labels=["0", number_text(self.limit)])
        lowest, highest = bar.ax.get_xticklabels()
        lowest.set_horizontalalignment("left")
        highest.set_horizontalalignment("right")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=0)


@dataclass(frozen=True)
class View:
    """What a page scrolls through, a picture shows, and a terminal prints: of every slice all panels and statistics.

    ``statistics`` belong to a slice, ``about`` to the whole; both are names and values. ``explanation`` is what one
    needs to know to read it, ``configuration`` how it was made. Of ``regions`` a page knows the mean of any rectangle.
    """

    title: str
    panels: Sequence[Panel]
    labels: Sequence[str]
    statistics: Sequence[Mapping[str, str]]
    explanation: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    configuration: str = ""
    regions: RegionSamples | None = None

    def __post_init__(self) -> None:
        counts = {len(self.labels), len(self.statistics), *(len(panel.images) for panel in self.panels)}
        require(len(self.panels) > 0 and min(counts) > 0, "nothing to show: no image")
        require(len(counts) == 1, f"a view has {sorted(counts)} images, labels and statistics; allowed: equally many")

    def text(self) -> str:
        """Return all names and values, a line each."""
        lines = [f"{name}: {value}" for name, value in self.about.items()]
        for label, values in zip(self.labels, self.statistics, strict=True):
            lines += ["", label, *(f"  {name}: {value}" for name, value in values.items())]
        return "\n".join(lines).lstrip("\n")


def plot_view(view: View, numbers: Sequence[int], path: Path) -> Figure:
    """Draw slices of a view below each other, each with all its panels; return the figure that was written."""
    columns = min(len(view.panels), PANELS_A_ROW)
    rows = -(-len(view.panels) // columns)
    widths = [max(panel.width for panel in view.panels[column::columns]) for column in range(columns)]
    # Wide enough for the title, too.
    figure = blank_figure(
        max(sum(widths), 0.09 * len(f"{view.title}, {view.labels[0]}")), (0.2 + 2.4 * rows) * len(numbers)
    )
    for part, number in zip(figure.subfigures(len(numbers), squeeze=False).flat, numbers, strict=True):
        part.suptitle(f"{view.title}, {view.labels[number]}", fontsize=10)
        places = part.subplots(rows, columns, squeeze=False, width_ratios=widths).flat
        for axes, panel in zip_longest(places, view.panels):
            if panel is None:
                axes.set_axis_off()
            else:
                panel.draw(axes, number)
    return write_figure(figure, path)
