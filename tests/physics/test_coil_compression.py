"""Virtual coils: nothing of the signal is lost that fewer coils can carry, and noise stays what it is."""

import pytest
import torch

from direct_deepen.physics.coil_compression import combined, principal_combinations


def test_signal_of_few_coils_is_kept_whole_and_noise_as_it_is(draw):
    signal = torch.einsum("vc,cs->vs", draw(12, 3), draw(3, 50, seed=1))
    combinations, kept = principal_combinations(signal, 3)
    assert kept == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(combinations.mH @ combinations, torch.eye(3, dtype=signal.dtype))
    torch.testing.assert_close(torch.einsum("vc,cs->vs", combinations, combined(signal, combinations)), signal)
    noise = combined(draw(12, 100_000, seed=2), combinations)
    # A hundred thousand draws: one per cent is three standard errors of a variance, and more of a correlation.
    covariance = noise @ noise.mH / (2 * 100_000)
    torch.testing.assert_close(covariance, torch.eye(3, dtype=covariance.dtype), rtol=0.01, atol=0.01)


def test_the_share_that_is_kept_is_that_of_the_energy(draw):
    samples = draw(6, 40)
    combinations, kept = principal_combinations(samples, 2)
    energy = combined(samples, combinations).abs().square().sum() / samples.abs().square().sum()
    assert kept == pytest.approx(float(energy))
    # No other two combinations keep more.
    other, _ = torch.linalg.qr(draw(6, 2, seed=3))
    assert float(combined(samples, other).abs().square().sum() / samples.abs().square().sum()) < kept


def test_more_than_there_are_is_one_line(draw, one_line_error):
    with one_line_error("(3, 8)", "4 virtual coils"):
        principal_combinations(draw(3, 8), 4)
    with one_line_error("count is 0"):
        principal_combinations(draw(3, 8), 0)
