"""Energy landscapes to be looked at."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes

from direct_deepen.evaluation.landscape import AXIS, Landscape, minimiser
from direct_deepen.pages.drawing import blank_figure, figure_file
from direct_deepen.pages.view import Panel, View

_EXPLANATION = (
    "Around every image x: x + α_z z + α_s s, with s the aliasing that SENSE leaves and z noise of the norm of s. "
    "Contours are of the logarithm; the cross marks the minimum. A good energy has its minimum at the image, (0, 0)."
)
_MINIMUM = "#ff453a"


def landscape_view(title: str, landscapes: Mapping[str, Landscape]) -> View:
    """Return the view of landscapes by name: contours of E and C, the image, and that where E is least."""
    found = list(landscapes.values())
    images = np.stack([landscape.image.abs().numpy() for landscape in found])
    white = float(images.max())
    panels = [
        Contours("energy E", np.stack([landscape.energy.numpy() for landscape in found]), None),
        Contours("cost C = ½‖Ax − b‖² + E", np.stack([landscape.cost.numpy() for landscape in found]), None),
        Panel("image", images, white),
        Panel("image where E is least", np.stack([image_at_minimum(landscape).numpy() for landscape in found]), white),
    ]
    return View(title, panels, list(landscapes), [statistics(landscape) for landscape in found], _EXPLANATION)


def statistics(landscape: Landscape) -> dict[str, str]:
    """Return by name, as text, where E and C have their minima, and their values there, at the image and at SENSE."""
    middle, end = len(AXIS) // 2, len(AXIS) - 1
    result: dict[str, str] = {}
    for name, values in (("E", landscape.energy), ("C", landscape.cost)):
        alpha_s, alpha_z = minimiser(values)
        result |= {
            f"minimum of {name}": f"α_z {alpha_z:.2f}, α_s {alpha_s:.2f}",
            f"{name} at the image": f"{float(values[middle, middle]):.4g}",
            f"{name} at its minimum": f"{float(values.min()):.4g}",
            f"{name} at SENSE": f"{float(values[end, middle]):.4g}",
        }
    return result | {"‖s‖/‖x‖": f"{float(landscape.structure.norm() / landscape.image.norm()):.3f}"}


def image_at_minimum(landscape: Landscape) -> torch.Tensor:
    """Return the magnitude of the image on the plane where E is least, without its noise: real (height, width)."""
    alpha_s, _ = minimiser(landscape.energy)
    return (landscape.image + alpha_s * landscape.structure).abs()


def draw_contours(axes: Axes, values: torch.Tensor, title: str) -> None:
    """Draw the logarithm of values over the plane with its scale, and a cross at their minimum."""
    alpha_s, alpha_z = minimiser(values)
    drawn = axes.contourf(AXIS, AXIS, values.log10().numpy(), levels=20)
    axes.figure.colorbar(drawn, ax=axes, fraction=0.046, label="log₁₀", ticks=list(drawn.levels)[::5])
    axes.plot(alpha_z, alpha_s, "+", color=_MINIMUM, markersize=10)
    axes.set(xlabel=r"$\alpha_z$ (noise)", ylabel=r"$\alpha_s$ (aliasing)", aspect="equal")
    axes.set_title(f"{title}: ({alpha_z:.2f}, {alpha_s:.2f})", fontsize=8)


class Contours(Panel):
    """Values over planes, real (slice, α_s, α_z), as contours."""

    width: ClassVar[float] = 3.0

    def png(self, number: int) -> bytes:
        """Return a slice as PNG file for a dark page."""
        with style.context("dark_background"):
            figure = blank_figure(4.4, 3.5)
            draw_contours(figure.subplots(), torch.from_numpy(self.images[number]), "minimum")
        figure.patch.set_alpha(0.0)
        return figure_file(figure)

    def draw(self, axes: Axes, number: int) -> None:
        """Draw a slice."""
        draw_contours(axes, torch.from_numpy(self.images[number]), self.title)
