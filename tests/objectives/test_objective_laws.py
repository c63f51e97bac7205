"""Laws that every objective has to pass, in one registry."""

import inspect

import pytest
import torch

from direct_deepen import objectives
from direct_deepen.priors import Denoiser, DiffusionDenoiser, ImageNetwork, NoiseConditionalEnergy, QuadraticEnergy

SIZES = {2: (6, 6), 3: (3, 4, 5)}
"""Images of these numbers of dimensions."""


def generator():
    return torch.Generator().manual_seed(0)


def contrast(prior, image):
    """Of images and of others that do not depend on the weights."""
    return objectives.contrastive_loss(prior(image), prior(0.7 * image.flip(0)), penalty=0.1)


def small(kind):
    """A network for all noise levels, with the arguments of the others."""
    return lambda **_: kind(channels=(3, 4), num_blocks=1)


LEVELS = torch.tensor([0.1, 0.5, 2.0])

LOSSES = {
    # name: (prior, loss of the prior on images)
    "contrastive_loss": (QuadraticEnergy, contrast),
    "denoising_score_matching_loss": (
        QuadraticEnergy,
        lambda p, x: objectives.denoising_score_matching_loss(
            p, x, max_noise_std=0.3, generator=generator(), scale=0.5, energy_weight=0.2
        ),
    ),
    "denoising_loss": (
        Denoiser,
        lambda p, x: objectives.denoising_loss(p, x, noise_std=0.2, generator=generator()),
    ),
    "mean_squared_error": (ImageNetwork, lambda p, x: objectives.mean_squared_error(p(x), x)),
    "diffusion_loss": (
        small(DiffusionDenoiser),
        lambda p, x: objectives.diffusion_loss(p, x, LEVELS, generator=generator()),
    ),
    "distillation_loss": (
        small(NoiseConditionalEnergy),
        lambda p, x: objectives.distillation_loss(
            p, lambda y, level: 0.5 * y, x, LEVELS, 0.5 * torch.ones_like(LEVELS), generator=generator()
        ),
    ),
    "log_barrier": (
        ImageNetwork,
        # No power iteration: its direction depends on the weights, and is held fixed in the gradient.
        lambda p, x: objectives.log_barrier(
            objectives.lipschitz_quotient(p, x, num_iterations=0, generator=generator()), 0.1
        ),
    ),
}

PARTS = {"draw_noise_levels", "energy_unit", "lipschitz_quotient"}
"""What is no objective, but goes into one above; with tests of its own."""


OF_VOLUMES = ["contrastive_loss", "denoising_score_matching_loss"]
"""Whose priors there are of three dimensions too."""


@pytest.fixture(params=[*((name, 2) for name in LOSSES), *((name, 3) for name in OF_VOLUMES)], ids=str)
def case(request, draw):
    name, dimensions = request.param
    kind, loss = LOSSES[name]
    more = {"dimensions": 3} if dimensions == 3 else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        prior = kind(hidden_channels=3, num_layers=3, activation="softplus", **more).double()
    return prior, loss, draw(3, *SIZES[dimensions])


def test_every_objective_of_the_package_is_in_the_registry():
    public = {name for name in objectives.__all__ if inspect.isfunction(getattr(objectives, name))}
    assert public == set(LOSSES) | PARTS


def test_a_loss_is_a_finite_scalar_that_every_weight_takes_part_in(case, global_generators_untouched):
    prior, loss, image = case
    copy = image.clone()
    value = loss(prior, image)
    assert value.shape == ()
    assert bool(torch.isfinite(value))
    value.backward()
    assert all(parameter.grad is not None for parameter in prior.parameters())
    assert torch.equal(image, copy)
    # The seed is all its randomness.
    assert float(loss(prior, image).detach()) == float(value.detach())


def test_its_gradient_is_that_of_finite_differences(case):
    prior, loss, image = case
    loss(prior, image).backward()
    directions = [torch.randn(p.shape, generator=generator(), dtype=p.dtype) for p in prior.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(prior.parameters(), directions, strict=True))
    values = []
    for sign in (1, -1):
        for parameter, direction in zip(prior.parameters(), directions, strict=True):
            parameter.data.add_(sign * 1e-5 * direction)
        values.append(float(loss(prior, image).detach()))
        for parameter, direction in zip(prior.parameters(), directions, strict=True):
            parameter.data.sub_(sign * 1e-5 * direction)
    # Central differences of step h err by h² times the third derivative, and by 1e-16/h of rounding.
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_a_step_down_the_gradient_lowers_it(case):
    prior, loss, image = case
    before = loss(prior, image)
    before.backward()
    norm = sum(float(p.grad.square().sum()) for p in prior.parameters()) ** 0.5
    for parameter in prior.parameters():
        parameter.data.sub_(1e-4 / norm * parameter.grad)
    assert float(loss(prior, image).detach()) < float(before.detach())
