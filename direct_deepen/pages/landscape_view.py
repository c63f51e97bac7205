"""Energy landscapes as a picture, as a page, and as figures."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from matplotlib import style
from matplotlib.axes import Axes

from direct_deepen.evaluation.landscape import AXIS, Landscape, minimiser
from direct_deepen.pages.figure import blank_figure, write_figure
from direct_deepen.pages.html_page import Html, Reel, page, paragraph, viewer
from direct_deepen.pages.pictures import Panel

_EXPLANATION = (
    "Around every image x: x + α_z z + α_s s, with s the aliasing that SENSE leaves and z noise of the norm of s. "
    "Contours are of the logarithm; the cross marks the minimum. A good energy has it at the image, (0, 0)."
)
_MINIMUM = "#ff453a"


def landscape_figures(landscape: Landscape) -> dict[str, str]:
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
    result["‖s‖/‖x‖"] = f"{float(landscape.structure.norm() / landscape.image.norm()):.3f}"
    return result


def plot_landscapes(landscapes: Mapping[str, Landscape], path: Path) -> None:
    """Draw for every landscape, by name, the contours of E and C, the image, and that where E is least."""
    figure = blank_figure(10, 2.6 * len(landscapes))
    rows = figure.subplots(len(landscapes), 4, squeeze=False)
    for axes, (name, landscape) in zip(rows, landscapes.items(), strict=True):
        draw_contours(axes[0], landscape.energy, f"E, {name}")
        draw_contours(axes[1], landscape.cost, "C")
        images = {"image": landscape.image.abs(), "image where E is least": image_at_minimum(landscape)}
        for axis, (title, image) in zip(axes[2:], images.items(), strict=True):
            axis.imshow(image.numpy(), cmap="gray", vmin=0.0, vmax=float(landscape.image.abs().max()))
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()
    write_figure(figure, path)


def draw_contours(axis: Axes, values: torch.Tensor, title: str) -> None:
    """Draw the logarithm of values over the plane with its scale, and a cross at their minimum."""
    alpha_s, alpha_z = minimiser(values)
    drawn = axis.contourf(AXIS, AXIS, values.log10().numpy(), levels=20)
    axis.figure.colorbar(drawn, ax=axis, fraction=0.046, label="log₁₀", ticks=list(drawn.levels)[::5])
    axis.plot(alpha_z, alpha_s, "+", color=_MINIMUM, markersize=10)
    axis.set(xlabel=r"$\alpha_z$ (noise)", ylabel=r"$\alpha_s$ (aliasing)")
    axis.set_title(f"{title}: ({alpha_z:.2f}, {alpha_s:.2f})", fontsize=8)


def image_at_minimum(landscape: Landscape) -> torch.Tensor:
    """Return the magnitude of the image on the plane where E is least, without its noise: real (height, width)."""
    alpha_s, _ = minimiser(landscape.energy)
    return (landscape.image + alpha_s * landscape.structure).abs()


def landscape_page(title: str, landscapes: Mapping[str, Landscape]) -> Html:
    """Return a page through which one scrolls landscape by landscape."""
    found = list(landscapes.values())
    stacks = {
        "image": torch.stack([landscape.image.abs() for landscape in found]),
        "image where E is least": torch.stack([image_at_minimum(landscape) for landscape in found]),
    }
    white = float(stacks["image"].max())
    drawings = [
        Reel("energy E", [_contour_png(landscape.energy) for landscape in found]),
        Reel("cost C = ½‖Ax − b‖² + E", [_contour_png(landscape.cost) for landscape in found]),
    ]
    images = [Reel.of(Panel(name, stack.numpy(), white)) for name, stack in stacks.items()]
    body = viewer([*drawings, *images], list(landscapes), [landscape_figures(landscape) for landscape in found])
    return page(title, paragraph(_EXPLANATION), body)


def _contour_png(values: torch.Tensor) -> bytes:
    with style.context("dark_background"):
        figure = blank_figure(4.4, 3.5)
        axis = figure.subplots()
        draw_contours(axis, values, "minimum")
        axis.set_aspect("equal")
    file = BytesIO()
    figure.savefig(file, format="png", dpi=130, transparent=True)
    return file.getvalue()
