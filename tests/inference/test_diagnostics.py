"""Convergence diagnostics on chains whose truth is known."""

import math

import pytest
import torch
from arviz_stats.base import array_stats

from direct_deepen.posterior.diagnostics import MINIMAL_KEEP, diagnose, effective_sample_size, split_r_hat

PIXELS = 200
"""Independent replications: pixels do not know of one another."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoregression(correlation: float, *, chains: int, length: int, seed: int = 0) -> torch.Tensor:
    """Stationary AR(1) chains of unit variance, (chain, length, pixel)."""
    noise = normal(chains, length, PIXELS, seed=seed)
    states = [noise[:, 0]]
    for step in range(1, length):
        states.append(correlation * states[-1] + math.sqrt(1 - correlation**2) * noise[:, step])
    return torch.stack(states, dim=1)


def mean_and_standard_error(values: torch.Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(values.numel())


# ---- Split R̂


def test_r_hat_of_independent_draws_is_one():
    chains, keep = 4, 200
    r_hat = split_r_hat(normal(chains, keep, PIXELS))
    # R̂² = 1 + (m·Var(half means) − W)/(m…): 1 + (F − 1)/n with F ~ F(7, ·) of mean one, n = 100 states a half chain.
    # So R̂ − 1 has mean zero (up to 1/n²) and standard deviation ½·√(2/7)/100 = 0.0027.
    mean, error = mean_and_standard_error(r_hat)
    assert abs(mean - 1) <= 3 * error + 1 / 100**2
    assert 0.5 < float(r_hat.std()) / (0.5 * math.sqrt(2 / 7) / 100) < 2
    assert float(r_hat.max()) < 1.02


@pytest.mark.parametrize("shift", [1.0, 10.0])
def test_r_hat_of_shifted_chains_has_the_closed_form(shift):
    keep = 2000
    states = normal(4, keep, PIXELS)
    states[2:] += shift
    # Variance within is one; between the means of eight half chains, half of them shifted, it is s²/4 · 8/7.
    expected = math.sqrt(1 + 2 * shift**2 / 7)
    mean, error = mean_and_standard_error(split_r_hat(states))
    # 3 standard errors, and the bias of order 1/n of the square root, n = 1000.
    assert abs(mean - expected) <= 3 * error + 2e-3


def test_r_hat_of_a_drift_within_chains_is_large():
    # Equal chains that all move: only splitting them shows it.
    drift = torch.linspace(0, 10, 100, dtype=torch.float64)[None, :, None]
    assert float(split_r_hat(normal(4, 100, PIXELS) + drift).min()) > 1.5


def test_r_hat_of_one_chain_compares_its_halves():
    chain = normal(1, 100, PIXELS)
    chain[:, 50:] += 10
    assert float(split_r_hat(chain).min()) > 2


def test_frozen_chains_that_disagree_are_not_called_converged():
    frozen = torch.arange(4, dtype=torch.float64)[:, None].expand(4, 8)
    assert split_r_hat(frozen).item() == math.inf


def test_r_hat_of_chains_that_never_vary_is_one():
    # Pixels outside the support of the coil maps are zero in every sample.
    assert split_r_hat(torch.zeros(4, 8, 3)).tolist() == [1.0, 1.0, 1.0]


def test_r_hat_does_not_depend_on_units_or_order_of_chains():
    states = autoregression(0.5, chains=4, length=50)
    expected = split_r_hat(states)
    torch.testing.assert_close(split_r_hat(3e4 * states - 7), expected, rtol=1e-9, atol=0)  # rounding
    torch.testing.assert_close(split_r_hat(states.flip(0)), expected, rtol=1e-12, atol=0)


# ---- Effective sample size


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
def test_effective_sample_size_of_an_autoregression(correlation):
    chains, length = 4, 4000
    size = effective_sample_size(autoregression(correlation, chains=chains, length=length))
    expected = chains * length * (1 - correlation) / (1 + correlation)
    # 3 standard errors over the pixels, and 2 % for the bias of stopping the sum at the first negative pair (measured:
    # 1.0 to 1.4 %).
    mean, error = mean_and_standard_error(size)
    assert abs(mean / expected - 1) <= 0.02 + 3 * error / expected


@pytest.mark.parametrize("correlation", [0.0, -0.3, -1.0])
def test_effective_sample_size_is_never_above_the_number_of_states(correlation):
    chains, keep = 8, 10
    size = effective_sample_size(autoregression(correlation, chains=chains, length=keep))
    assert float(size.max()) == chains * keep
    # Independent draws, ten of each chain: what is lost is what ten states cannot tell.
    assert float(size.median()) > 0.8 * chains * keep


@pytest.mark.parametrize("length", [10, 11, 12, 15, 60])
@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.5, 0.9])
def test_convergence_figures_are_those_of_arviz(correlation, length):
    chains = 6
    states = autoregression(correlation, chains=chains, length=length)
    for pixel in range(0, PIXELS, 10):
        one = states[..., pixel].numpy()
        # Its bound is N·log₁₀N.
        expected = min(chains * 2 * (length // 2), array_stats.ess(one, method="mean"))
        assert float(effective_sample_size(states)[pixel]) == pytest.approx(expected, rel=1e-9), pixel
        assert float(split_r_hat(states)[pixel]) == pytest.approx(array_stats.rhat(one, method="split"), rel=1e-9), (
            pixel
        )


def test_effective_sample_size_of_chains_that_disagree_is_small():
    states = normal(4, 500, PIXELS)
    states[2:] += 10
    assert float(effective_sample_size(states).max()) < 20


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_monte_carlo_error_is_the_scatter_of_the_mean(correlation):
    states = autoregression(correlation, chains=4, length=2000, seed=3)
    error = diagnose(states).monte_carlo_error
    # The true mean is zero, so mean/error has variance one: over 200 pixels with a standard error of √(2/200) = 0.1.
    ratio = float((states.mean(dim=(0, 1)) / error).square().mean())
    assert abs(ratio - 1) <= 3 * 0.1


# ---- Availability


@pytest.mark.parametrize("keep", range(1, MINIMAL_KEEP))
def test_too_few_states_give_no_figures(keep):
    diagnostics = diagnose(normal(5, keep, 2, 3))
    assert (diagnostics.num_chains, diagnostics.keep) == (5, keep)
    assert diagnostics.split_r_hat is None
    assert diagnostics.effective_sample_size is None
    assert diagnostics.monte_carlo_error is None


@pytest.mark.parametrize("keep", [MINIMAL_KEEP, MINIMAL_KEEP + 1])
def test_enough_states_give_finite_figures_for_every_pixel(keep):
    diagnostics = diagnose(normal(5, keep, 2, 3, 4))
    for figure in (diagnostics.split_r_hat, diagnostics.effective_sample_size, diagnostics.monte_carlo_error):
        assert figure.shape == (2, 3, 4)
        assert bool(torch.isfinite(figure).all())
        assert bool((figure > 0).all())
