"""The energy on a plane: its values are E and C there, and the minimum is found where an energy has it."""

import json
import re

import pytest
import torch
from matplotlib import image as matplotlib_image

from direct_deepen.evaluation.landscape import AXIS, landscape, minimiser
from direct_deepen.inference.cost import cost_terms
from direct_deepen.pages.html_page import view_page
from direct_deepen.pages.landscape_view import landscape_view, statistics
from direct_deepen.pages.view import plot_view
from direct_deepen.physics import sense

MIDDLE, END = 20, 40


class DistanceEnergy:
    """E(x) = ‖x − c‖² + 1, least at c."""

    def __init__(self, centre):
        self.centre = centre

    def value_and_grad(self, image):
        return (image - self.centre).abs().square().sum(dim=(1, 2)) + 1, 2 * (image - self.centre)


@pytest.fixture
def problem(random_operator, draw):
    """Operator, image and data with noise."""
    A = random_operator(batch=1)
    image = draw(1, 8, 8, seed=1)
    return A, image, A.forward(image) + 0.1 * A.sampling_mask * draw(1, 3, 8, 8, seed=2)


def around(problem, centre):
    A, image, data = problem
    return landscape(A, data, DistanceEnergy(centre), image, generator=torch.Generator().manual_seed(0))


def test_data_outside_the_mask_change_nothing(problem, draw):
    A, image, data = problem
    planes = [around((A, image, kspace), image) for kspace in (data, data + ~A.sampling_mask)]
    assert torch.equal(planes[0].cost, planes[1].cost)


def test_the_minimum_is_where_the_energy_has_it(problem):
    A, image, data = problem
    structure = sense(A, data) - image
    # A distance is least at the point of the plane next to the centre.
    plane = around(problem, image + 0.3 * structure)
    assert minimiser(plane.energy) == (pytest.approx(0.3), 0.0)
    assert float(plane.energy[26, MIDDLE]) == pytest.approx(1.0, rel=1e-12)
    assert minimiser(around(problem, image).energy) == (0.0, 0.0)


def test_energy_and_cost_are_those_of_the_images_on_the_plane(problem):
    A, image, data = problem
    plane = around(problem, image)
    assert plane.energy.shape == plane.cost.shape == (len(AXIS), len(AXIS))
    # The same noise: drawn by the same generator, with the norm of the aliasing.
    structure = sense(A, data) - image
    parts = torch.randn(1, 8, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.view_as_complex(parts)
    noise = noise * structure.norm() / noise.norm()
    for row, column in ((MIDDLE, MIDDLE), (END, MIDDLE), (3, 31), (40, 0)):
        there = image + AXIS[column] * noise + AXIS[row] * structure
        terms = cost_terms(A, data, DistanceEnergy(image), there)
        # Double precision, but for α in single: 2⁻²⁴ relative.
        assert float(plane.energy[row, column]) == pytest.approx(float(terms.energy), rel=1e-6)
        assert float(plane.cost[row, column]) == pytest.approx(float(terms.cost), rel=1e-6)


def test_statistics_name_minimum_image_and_sense(problem):
    plane = around(problem, problem[1])
    values = statistics(plane)
    assert values["minimum of E"] == "α_z 0.00, α_s 0.00"
    assert values["E at the image"] == values["E at its minimum"] == "1"
    assert float(values["E at SENSE"]) == pytest.approx(float(plane.structure.norm()) ** 2 + 1, rel=1e-3)


def test_picture_and_page_show_every_plane(tmp_path, problem):
    planes = {"first": around(problem, problem[1]), "second": around(problem, 0 * problem[1])}
    view = landscape_view("a title", planes)
    plot_view(view, range(2), tmp_path / "landscape.png")
    assert matplotlib_image.imread(tmp_path / "landscape.png").std() > 0.1
    content = view_page(view)
    viewer = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', content)[0])
    assert viewer["labels"] == ["first", "second"]
    for panel in viewer["panels"]:
        first, second = panel["files"]
        # The image is the same in both, what depends on the energy is not.
        assert (first == second) == (panel["title"] == "image")
