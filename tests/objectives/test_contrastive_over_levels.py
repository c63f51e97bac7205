"""Maximum likelihood over noise levels: the data that it makes, and where its gradient vanishes."""

import pytest
import torch

from direct_deepen.inference import Map
from direct_deepen.objectives import Update
from direct_deepen.objectives.contrastive_over_levels import ContrastiveOverLevels, data_of_noise
from direct_deepen.objectives.training_samples import ChainSettings
from direct_deepen.physics import SenseOperator, complex_normal
from direct_deepen.physics.problem import Problem
from direct_deepen.priors.energy import Energy

STD, ETA = 0.05, 0.02
FACTOR = 2**0.5


class GaussianPrior(torch.nn.Module):
    """E_σ of images N(0, s²), times θ: at θ = 1 −E_σ/σ² is the logarithm of the density of images with noise σ."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, image: torch.Tensor, noise_std: float) -> torch.Tensor:
        weight = self.factor * noise_std**2 / (STD**2 + noise_std**2)
        return 0.5 * weight * image.abs().square().sum(dim=(1, 2))

    def at_noise(self, noise_std: float) -> Energy:
        prior = self

        class AtNoise(Energy):
            def __init__(self) -> None:
                super().__init__()
                self.noise_std, self.weight = FACTOR * noise_std, 1 / (2 * FACTOR**2)

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return self.weight * prior(image, self.noise_std)

        return AtNoise()


def problem_of(image: torch.Tensor, sampled: float = 0.5) -> Problem:
    """One coil, of which a part of k-space is sampled."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(len(image), 1, *image.shape[1:], generator=generator) < sampled
    A = SenseOperator(torch.ones_like(image)[:, None], mask)
    return Problem(A, A.forward(image), torch.ones(len(image)), [("a", i) for i in range(len(image))])


def draw_images(count: int, seed: int = 0) -> torch.Tensor:
    return STD * complex_normal((count, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


def objective(**settings: object) -> ContrastiveOverLevels:
    return ContrastiveOverLevels(
        warm_start_iterations=0,
        smallest_data_noise_std=0.999 * ETA,
        largest_data_noise_std=1.001 * ETA,
        energy_penalty=0.0,
        # Unsampled directions have a curvature of 0.1: 250 steps are six relaxation times. In sampled ones, of 1.1, the
        # step makes the variance about the mean 14 % too large: 1 % of all that is there.
        **{"chains": ChainSettings(num_steps=250, map_steps=0, step_size=0.25)} | settings,
    )


def update(prior: torch.nn.Module, image: torch.Tensor, problem: Problem, iteration: int = 0) -> Update:
    generator = torch.Generator().manual_seed(iteration)
    return Update(prior, prior, Map(), image, problem, iteration, generator, lambda *_: prior)


def test_data_have_the_noise_they_are_said_to_have_and_none_outside_the_mask():
    image = draw_images(40)
    problem = problem_of(image)
    made = data_of_noise(problem, image, ETA, generator=torch.Generator().manual_seed(1))
    noise = made.masked_kspace - problem.A.forward(image)
    sampled = problem.A.sampling_mask.expand_as(noise)
    assert bool((noise[~sampled] == 0).all())
    # 10,000 real components: a standard error of 0.7 %.
    assert float(torch.view_as_real(noise[sampled]).std()) == pytest.approx(ETA, rel=0.03)
    assert made.names == problem.names


def test_the_gradient_vanishes_at_the_true_prior_of_images_with_their_noise():
    r"""Samples of the posterior of b = Ax⁺ + ηn, averaged over b, are as x⁺ if the prior is that of x⁺.

    dL/dθ is the difference of the energies over E₀ at θ = 1. Of data of x alone, without its noise, it would be large:
    sampled directions of the samples would have s² + η² and less, where those of x⁺ have s² + σ².
    """
    prior, count = GaussianPrior(), 96
    image = draw_images(count)
    loss = objective().loss(update(prior, image, problem_of(image)))
    loss.value.backward()
    true, sample = loss.metrics["train/energy_true"], loss.metrics["train/energy_sample"]
    # σ² = 4η² against s²: of both E/E₀ is θ (s² + σ²)/(s² + σ²) = 1, that is P(s² + σ²)·σ²/(s² + σ²)/2c² over Pε²/2.
    assert true == pytest.approx(1.0, rel=0.02)
    # Sums of 49,000 squares: standard errors of 0.6 % each.
    assert sample == pytest.approx(true, rel=0.03)
    scale = max(1.0, 0.5 * (true + sample))
    assert float(prior.factor.grad) == pytest.approx((true - sample) / scale, rel=1e-6)
    assert loss.gap == pytest.approx(abs(true - sample) / scale, rel=1e-6)


def test_energies_far_above_their_unit_weigh_no_more_than_others():
    # With four times θ both are above E₀, and what counts is their difference over their mean.
    prior, image = GaussianPrior(), draw_images(16)
    prior.factor.data.fill_(4.0)
    loss = objective().loss(update(prior, image, problem_of(image)))
    loss.value.backward()
    true, sample = loss.metrics["train/energy_true"], loss.metrics["train/energy_sample"]
    assert true == pytest.approx(4.0, rel=0.05)
    assert 4 * float(prior.factor.grad) == pytest.approx(2 * (true - sample) / (true + sample), rel=1e-6)


@pytest.mark.parametrize("noisy", [False, True])
def test_short_chains_from_map_need_the_noise_that_map_has_not(noisy):
    r"""At the true prior E⁻ of three steps from MAP is far too small, with the noise of the posterior it is right.

    The prior has curvature σ²/((s² + σ²)2c²) in every direction: with that as μ the start is the posterior itself.
    """
    level = FACTOR * FACTOR * ETA
    curvature = level**2 / (STD**2 + level**2) / (2 * FACTOR**2)
    image = draw_images(64)
    short = objective(
        chains=ChainSettings(
            num_steps=3,
            map_steps=30,
            map_noise_curvature=curvature if noisy else None,
            step_size=0.25,
            averaged_noise=True,
        )
    )
    loss = short.loss(update(GaussianPrior(), image, problem_of(image)))
    gap = loss.metrics["train/energy_true"] - loss.metrics["train/energy_sample"]
    # Sums of 33,000 squares: a standard error of 0.8 % each.
    assert (abs(gap) < 0.04) if noisy else (gap > 0.2)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_gradient_pulls_a_wrong_prior_to_the_true_one(factor):
    prior = GaussianPrior()
    prior.factor.data.fill_(factor)
    image = draw_images(32)
    objective().loss(update(prior, image, problem_of(image))).value.backward()
    # Too weak a prior (θ < 1) has samples of too large an energy: a step against the gradient raises θ.
    assert float(prior.factor.grad) * (factor - 1) > 0.05


def test_the_warm_start_has_its_minimum_at_the_true_score():
    prior = GaussianPrior()
    image = draw_images(200)
    warm = ContrastiveOverLevels(warm_start_iterations=1, smallest_noise_std=0.02, largest_noise_std=0.2)
    values = []
    for factor in (0.9, 1.0, 1.1):
        prior.factor.data.fill_(factor)
        loss = warm.loss(update(prior, image, problem_of(image)))
        assert loss.name == "score_matching_loss"
        values.append(float(loss.value.detach()))
    assert values[1] < min(values[0], values[2])


def test_the_phases_begin_where_they_are_set():
    found = ContrastiveOverLevels(warm_start_iterations=7)
    assert [found.phase_start(i) for i in (0, 6, 7, 100)] == [0, 0, 7, 7]
