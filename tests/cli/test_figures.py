"""Figures: every slice and method is drawn, and what is drawn is not the same everywhere."""

import numpy as np
import pytest
import torch
from matplotlib import image as matplotlib_image

from direct_deepen.evaluation.pictures import Picture
from direct_deepen.pages import plots


def picture(number, *, posteriors=("deepen",)):
    generator = torch.Generator().manual_seed(number)
    reference = torch.rand(16, 16, generator=generator)
    methods = ["zero_filled", "sense", *(f"{name}_{kind}" for name in posteriors for kind in ("map", "mmse"))]
    images = {name: reference + 0.1 * torch.rand(16, 16, generator=generator) for name in methods}
    std = {name: 0.1 * torch.rand(16, 16, generator=generator) for name in posteriors}
    return Picture(f"a.h5#{number}", reference, images, std)


def images_of(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def busiest_window(reference, size):
    """The window with the largest sum of differences between neighbours, by looking at every one."""
    image = reference.numpy()
    edges = np.abs(np.diff(image, axis=0))[:, :-1] + np.abs(np.diff(image, axis=1))[:-1]
    places = [(top, left) for top in range(len(edges) - size + 1) for left in range(edges.shape[1] - size + 1)]
    top, left = max(places, key=lambda place: edges[place[0] : place[0] + size, place[1] : place[1] + size].sum())
    return slice(top, top + size), slice(left, left + size)


def test_the_comparison_shows_every_slice_every_method_a_zoom_and_ten_times_its_error(tmp_path):
    pictures = [picture(0), picture(1)]
    figure = plots.plot_comparison(pictures, tmp_path / "comparison.png")
    expected = []
    for shown in pictures:
        window = busiest_window(shown.reference, 5)
        expected += [shown.reference, *shown.images.values()]
        expected += [shown.reference[window], *(image[window] for image in shown.images.values())]
        expected += [10 * (image - shown.reference).abs() for image in shown.images.values()]
    found = images_of(figure)
    assert len(found) == len(expected) == 2 * (1 + 4 + 1 + 4 + 4)
    for array, image in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, image.numpy(), rtol=1e-6)


def test_the_posterior_shows_reference_estimates_error_and_deviation_of_every_prediction(tmp_path):
    shown = picture(0, posteriors=("first", "second"))
    figure = plots.plot_posterior([shown], tmp_path / "posterior.png")
    expected = []
    for name in ("first", "second"):
        mean = shown.images[f"{name}_mmse"]
        error = (mean - shown.reference).abs()
        expected += [shown.reference, shown.images[f"{name}_map"], mean, error, shown.std[name]]
    found = images_of(figure)
    assert len(found) == len(expected)
    for array, image in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, image.numpy(), rtol=1e-6)


def test_uncertainties_of_methods_stand_side_by_side_on_one_scale(tmp_path):
    shown = picture(0, posteriors=("first", "second"))
    images = {name: shown.images[f"{name}_mmse"] for name in ("first", "second")} | {"sense": shown.reference}
    shown = Picture(shown.case, shown.reference, images, shown.std)
    figure = plots.plot_uncertainty([shown], tmp_path / "uncertainty.png")
    names = ("first", "second")
    errors = [(images[name] - shown.reference).abs() for name in names]
    expected = [shown.reference, *(images[name] for name in names), *errors, *(shown.std[name] for name in names)]
    for array, image in zip(images_of(figure), expected, strict=True):
        np.testing.assert_allclose(array, image.numpy(), rtol=1e-6)
    chosen = plots.plot_uncertainty([shown], tmp_path / "chosen.png", methods=["sense", "second"])
    assert len(images_of(chosen)) == 1 + 2 + 2 + 1
    limits = {axes.images[0].get_clim() for axes in figure.axes if axes.images and axes.images[0].cmap.name != "gray"}
    assert len(limits) == 1


def test_error_and_deviation_share_one_scale_of_brightness(tmp_path):
    figure = plots.plot_posterior([picture(0)], tmp_path / "posterior.png")
    *_, error, deviation = [axes.images[0] for axes in figure.axes if axes.images][:5]
    assert error.get_clim() == deviation.get_clim()
    assert error.get_clim()[0] == 0


@pytest.mark.parametrize("plot", [plots.plot_comparison, plots.plot_posterior])
def test_a_figure_is_a_picture_with_many_shades(tmp_path, plot):
    path = tmp_path / "figure.png"
    plot([picture(0)], path)
    pixels = matplotlib_image.imread(path)
    assert min(pixels.shape[:2]) > 200
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 100


def test_nothing_to_draw_is_refused(tmp_path, one_line_error):
    with one_line_error("nothing to plot"):
        plots.plot_comparison([], tmp_path / "comparison.png")
    with one_line_error("nothing to plot", "posterior"):
        plots.plot_posterior([picture(0, posteriors=())], tmp_path / "posterior.png")
    with one_line_error("nothing to plot", "posterior"):
        plots.plot_uncertainty([picture(0, posteriors=())], tmp_path / "uncertainty.png")
    assert not list(tmp_path.iterdir())
