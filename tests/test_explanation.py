"""What is left of the data by place in k-space: laws of the truth, and a figure for each kind of trouble."""

import pytest
import torch
from scipy.special import gammainc, gammaincinv

from direct_deepen import SenseOperator, misfit
from direct_deepen.physics import complex_normal
from direct_deepen.physics.sense_operator import normalize_sensitivity_map
from direct_deepen.posterior.explanation import explanation
from direct_deepen.posterior.misfit import LIKELY, LIMITS

SIZE, COILS, ETA = 32, 6, 0.01
EPSILON = 2**0.5 * ETA


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mask(batch=1):
    """A centre of 8×8 and a third of the other places."""
    sampled = torch.rand(batch, 1, SIZE, SIZE, generator=generator()) < 1 / 3
    sampled[..., 12:20, 12:20] = True
    return sampled.double()


def noise(batch=1, seed=1, sampled=None):
    shape = (batch, COILS, SIZE, SIZE)
    values = ETA * complex_normal(shape, generator=generator(seed), dtype=torch.complex128)
    return values * (mask(batch) if sampled is None else sampled)


def problem():
    """An operator with smooth maps, an image that is smooth as well, and its data."""
    maps = torch.zeros(1, COILS, SIZE, SIZE, dtype=torch.complex128)
    maps[..., 15:18, 15:18] = complex_normal((1, COILS, 3, 3), generator=generator(2), dtype=torch.complex128)
    maps = normalize_sensitivity_map(torch.fft.ifftshift(torch.fft.ifft2(torch.fft.ifftshift(maps, dim=(-2, -1)))))
    axis = torch.linspace(-1, 1, SIZE, dtype=torch.float64)
    image = torch.exp(-4 * (axis[:, None] ** 2 + axis**2))[None].to(torch.complex128)
    A = SenseOperator(maps, mask())
    return A, image, A.forward(image) + noise()


def test_what_the_truth_leaves_is_gamma_distributed_at_every_place():
    left = noise(200, sampled=1.0).abs().square().mean(dim=1) / EPSILON**2
    # 200 draws at a corner, the centre and between: nothing depends on the place.
    for row, column in ((0, 0), (16, 16), (3, 20)):
        values = left[:, row, column].sort().values.numpy()
        expected = gammainc(COILS, COILS * values)
        # Kolmogorov and Smirnov: beyond 1.95/√n once in a thousand.
        assert abs(expected - torch.linspace(0, 1, 200).numpy()).max() < 1.95 / 200**0.5


def test_figures_of_the_truth_are_those_of_noise():
    batch = 20
    sampled = mask(batch)
    figures = explanation(noise(batch), noise(batch) + sampled, sampled, EPSILON)
    edge = sampled[:, 0].sum(dim=(1, 2)) > 0
    assert bool(edge.all())
    # A median of some 200 gamma variables of mean one and variance 1/C, beside the mean over the batch.
    assert float(figures.noise_above.mean()) == pytest.approx(1, abs=0.02)
    assert float(figures.noise_above.std()) < 0.1
    share = 1 - SIZE**2 / (COILS * sampled[0].sum())
    assert float((figures.noise_below * figures.noise_above).mean()) == pytest.approx(float(share), rel=0.05)
    # Of a thousand samples of a mean of six exponentials the largest is below four.
    assert float(figures.spike.max()) < 3
    assert float(figures.unexplained.max()) < 0.01


def test_the_unit_is_the_noise_whatever_number_of_coils_and_samples():
    one, sampled = noise(), mask()
    base = explanation(one, one + sampled, sampled, EPSILON)
    twice = explanation(2 * one, 2 * (one + sampled), sampled, torch.tensor([2 * EPSILON]))
    more = explanation(torch.cat([one, one], 1), torch.cat([one, one], 1) + sampled, sampled, EPSILON)
    for name in ("noise_above", "spike", "unexplained"):
        assert float(getattr(twice, name)) == pytest.approx(float(getattr(base, name)))
    # The same q of more coils; only the median of its law is nearer one.
    factor = gammaincinv(2 * COILS, 0.5) / 2 / gammaincinv(COILS, 0.5)
    assert float(more.noise_above) * factor == pytest.approx(float(base.noise_above))


def test_a_wrong_ring_of_noise_shows_at_the_edge_alone():
    residual, sampled = noise(), mask()
    inner = residual.clone()
    inner[..., 12:20, 12:20] *= 50
    outer = residual * 3
    base, centre, edge = (explanation(x, residual + sampled, sampled, EPSILON) for x in (residual, inner, outer))
    assert float(centre.noise_above) == float(base.noise_above)
    assert float(edge.noise_above) == pytest.approx(9 * float(base.noise_above))


def test_the_share_that_is_not_explained_is_that_of_the_signal():
    signal, sampled = complex_normal((1, COILS, SIZE, SIZE), generator=generator(3), dtype=torch.complex128), mask()
    signal = signal * sampled
    figures = explanation(0.2 * signal + noise(), signal, sampled, EPSILON)
    assert float(figures.unexplained[0]) == pytest.approx(0.2, rel=0.01)


def test_no_figure_is_above_its_limit_where_the_operator_is_exact():
    A, image, b = problem()
    figures = misfit(A, b, image, image, EPSILON).arrays()
    assert not bool(misfit(A, b, image, image, EPSILON).flagged)
    assert {"unexplained", "noise_above", "noise_below", "spike", "off_centre"} <= set(figures)
    assert set(LIMITS) <= set(LIKELY)


def above(A, image, b, noise_std=EPSILON):
    figures = misfit(A, b, image, image, noise_std).arrays()
    return {name for name, limit in LIMITS.items() if name in figures and float(figures[name][0]) > limit}


@pytest.mark.parametrize("place", [(16, 18), (3, 30), (0, 0)])
def test_a_spike_in_one_sample_is_found_wherever_it_is(place):
    A, image, b = problem()
    row, column = place
    A.sampling_mask[..., row, column] = 1
    exact = SenseOperator(A.sensitivity_map, A.sampling_mask)
    b = exact.forward(image) + noise(sampled=A.sampling_mask)
    assert above(exact, image, b) == set()
    b[..., row, column] += 20 * ETA
    assert above(exact, image, b) == {"spike"}


def test_a_wrong_noise_level_is_found_in_either_direction():
    A, image, b = problem()
    assert above(A, image, b, EPSILON / 2) == {"noise_above"}
    assert above(A, image, b, EPSILON * 3) == {"noise_below"}


def test_wrong_maps_are_not_explained_and_a_shift_is_off_centre():
    A, image, b = problem()
    wrong = SenseOperator(A.sensitivity_map.roll(1, dims=1), A.sampling_mask)
    assert "unexplained" in above(wrong, image, b)
    shifted = (b.roll((3, 3), dims=(-2, -1))) * A.sampling_mask
    assert "off_centre" in above(A, image, shifted)
