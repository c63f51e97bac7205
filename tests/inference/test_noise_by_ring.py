"""``noise_by_ring``: levels of EM against their closed form, and what they are worth where coil maps are wrong."""

from dataclasses import dataclass, replace

import pytest
import torch

from direct_deepen.inference import Langevin, Map, noise_by_ring
from direct_deepen.inference.noise_by_ring import LARGEST_RATIO
from direct_deepen.physics import SenseOperator
from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.rings import num_rings, ring_numbers

SIZE, NOISE = 48, torch.tensor([0.09, 0.06, 0.03, 0.03])
"""η of the rings to 4, 8, 16 and beyond."""
RINGS = ring_numbers(SIZE, SIZE)
VARIANCE = torch.where(torch.arange(SIZE) % 2 == 0, 1.0, 1e-3).outer(torch.ones(SIZE))
"""Of the prior, per real component of k-space (row, column): every second row holds little but noise."""


@dataclass
class Gaussian:
    """E = (ε²/4) Σ_k |(Fx)_k|²/v_k, for data of noise ε the prior of variance v."""

    noise_std: float

    def value_and_grad(self, image):
        gradient = ifft2(self.noise_std**2 / 2 / VARIANCE * fft2(image))
        return 0.5 * (image.conj() * gradient).real.sum(dim=(1, 2)), gradient


@pytest.fixture(scope="module")
def problem(draw):
    """A problem of one coil with half of the samples, drawn from the prior, with noise that differs between rings."""
    mask = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.5
    spectrum = VARIANCE.sqrt() * draw(1, SIZE, SIZE, seed=2, dtype=torch.complex64)
    noise = NOISE[RINGS] * draw(1, SIZE, SIZE, seed=3, dtype=torch.complex64)
    A = SenseOperator(torch.ones(1, 1, SIZE, SIZE, dtype=torch.complex64), mask)
    return Problem(A, (spectrum + noise)[:, None] * mask, torch.ones(1), [("volume", 0)])


def closed_form(problem, start, rounds):
    """EM where posteriors are Gaussian and diagonal: E|Ax − b|² = (1 − g)²|b|² + 2gη², g = v/(v + η²)."""
    sampled, data = problem.A.sampling_mask[0, 0], problem.masked_kspace[0, 0].abs() ** 2
    levels = torch.full((num_rings(SIZE, SIZE),), start)
    for _ in range(rounds):
        squared = levels[RINGS] ** 2
        gain = VARIANCE / (VARIANCE + squared)
        expected = (1 - gain) ** 2 * data + 2 * gain * squared
        rings = [expected[sampled & (ring == RINGS)] for ring in range(len(levels))]
        levels = torch.stack([values.mean() / 2 for values in rings]).sqrt()
    return levels


def estimated(problem, **options):
    level = 0.05
    wiener = ifft2(problem.masked_kspace[:, 0] * (VARIANCE / (VARIANCE + level**2)))
    start = {"noise_std": 2**0.5 * level, "init": wiener} | options
    return noise_by_ring.noise_by_ring(problem, Gaussian, **start).noise_std.to(torch.float32)


@pytest.mark.parametrize("rounds", [2, 8])
def test_levels_are_those_of_expectation_maximisation(problem, monkeypatch, rounds):
    monkeypatch.setattr(noise_by_ring, "_ROUNDS", rounds)
    # Eight states of some 25 samples in the smallest ring, correlated: 7 %; measured 1 to 8 %. The residual of MAP in
    # the place of that of samples would be 30 % too small after one round, and go to zero; real noise in that of
    # complex noise √2 too large.
    torch.testing.assert_close(estimated(problem), closed_form(problem, 0.05, rounds), rtol=0.1, atol=0)


def test_what_they_go_to_is_the_noise_that_data_were_drawn_with(problem):
    # Half of 25 complex samples, every second row, tell the noise of the smallest ring: 1/√25 of it.
    torch.testing.assert_close(closed_form(problem, 0.05, 500), NOISE, rtol=0.2, atol=0)


def test_no_level_is_beyond_the_limit(problem):
    loud = replace(problem, masked_kspace=problem.masked_kspace * (1 + 9 * (RINGS == 0)))
    levels = estimated(loud)
    assert float(levels.max() / levels.min()) == pytest.approx(LARGEST_RATIO, rel=1e-5)


def test_a_ring_without_samples_is_no_reason_to_doubt_the_others(problem):
    within = problem.A.sampling_mask * (RINGS < 3)
    A = SenseOperator(problem.A.sensitivity_map, within)
    levels = estimated(replace(problem, A=A, masked_kspace=problem.masked_kspace * within))
    assert levels[3] == levels[:3].min()
    torch.testing.assert_close(levels[:3], estimated(problem)[:3], rtol=0.1, atol=0)


def test_one_result_whatever_is_drawn_before(problem):
    torch.manual_seed(5)
    first = estimated(problem)
    state = torch.get_rng_state()
    torch.testing.assert_close(estimated(problem), first, rtol=0, atol=0)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)


# ---- In an inference


@dataclass
class AtNoise(torch.nn.Module):
    """A prior of all noise levels, as the weights of the package."""

    def __post_init__(self):
        super().__init__()

    def at_noise(self, noise_std):
        return Gaussian(noise_std)


def test_map_is_the_minimum_with_these_weights(problem):
    inference = Map(noise_std=2**0.5 * 0.02, noise_by_ring=True, tolerance=1e-12)
    weighted, found = inference.with_noise(problem, AtNoise())
    estimate = inference.solve(weighted, AtNoise())
    (levels,) = found["noise_by_ring"].float()
    assert float(estimate.arrays["noise_std"]) == pytest.approx(2**0.5 * float(levels.min()))
    squared, sampled = levels[RINGS] ** 2, problem.A.sampling_mask[:, 0]
    # Wiener's filter, sample by sample.
    expected = ifft2(sampled * problem.masked_kspace[:, 0] * VARIANCE / (VARIANCE + squared))
    torch.testing.assert_close(estimate.image, expected.to(torch.complex64), rtol=0, atol=1e-4)


def test_chains_have_the_weights_of_map(problem):
    inference = Langevin(noise_std=2**0.5 * 0.02, noise_by_ring=True, num_samples=2, num_steps=4, keep=1)
    weighted, found = inference.with_noise(problem, AtNoise())
    # Two rounds of two chains of eight steps, each with two evaluations more at its start; and MAP.
    assert float(found["noise_gradient_evaluations"]) > 40
    assert inference.with_noise(weighted, AtNoise()) == (weighted, {})

    def images(given):
        return inference.sample(given, AtNoise(), torch.Generator().manual_seed(0)).images

    torch.testing.assert_close(images(problem), images(weighted), rtol=0, atol=0)
