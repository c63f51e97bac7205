"""The three axes hold: an energy, an objective and a sampler from outside. The guide runs them with every command."""

from pathlib import Path

import pytest
import torch
from experts import FieldOfExperts
from kinetic import KineticLangevin

from direct_deepen import SenseOperator
from direct_deepen.parts import SharedSettings
from direct_deepen.physics.problem import Problem

FOLDER = Path(__file__).parent
PARTS = ("experts", "robust", "kinetic")


@pytest.mark.parametrize("name", PARTS)
def test_a_part_takes_few_lines(name):
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 40


def test_the_energy_has_the_gradient_of_finite_differences(draw):
    energy = FieldOfExperts(num_filters=2).double()
    image, direction = draw(1, 8, 8, seed=1), draw(1, 8, 8, seed=2)
    _, gradient = energy.value_and_grad(image)
    with torch.no_grad():
        change = energy(image + 1e-6 * direction) - energy(image - 1e-6 * direction)
    slope = (gradient.conj() * direction).real.sum()
    assert float(slope) == pytest.approx(float(change) / 2e-6, rel=1e-6)


class Quadratic(torch.nn.Module):
    """E = ½h‖x‖²."""

    def __init__(self, curvature):
        super().__init__()
        self.curvature = curvature

    def value_and_grad(self, image):
        return 0.5 * self.curvature * image.abs().square().sum(dim=(1, 2)), self.curvature * image


def test_the_sampler_has_the_variance_of_a_gaussian_posterior(draw):
    """ε²/2(1 + h) where all is measured; a step h of momentum has a bias of order h²(1 + h)/4, here 1 %."""
    A = SenseOperator(torch.ones(1, 1, 32, 32, dtype=torch.complex128), torch.ones(1, 1, 32, 32))
    problem = Problem(A, torch.zeros(1, 1, 32, 32, dtype=torch.complex128), torch.ones(1), [("a.h5", 0)])
    sampler = KineticLangevin(num_samples=20, num_steps=100, step_size=0.15)
    sampler.shared = SharedSettings(noise_std=0.1)
    images = sampler.sample(problem, Quadratic(1.0), torch.Generator().manual_seed(0)).images
    variance = float(torch.view_as_real(images).square().mean())
    # 40 960 independent numbers: a standard error of 0.7 %.
    assert variance == pytest.approx(0.1**2 / (2 * 2.0), rel=0.03)
