"""Means of regions: laws of linear figures, and intervals that hold their share."""

import numpy as np
import pytest
import torch

from direct_deepen import Posterior, Region
from direct_deepen.inference import Samples
from direct_deepen.posterior.region import pooled

ROWS, COLUMNS = 8, 9


@pytest.fixture
def mask() -> torch.Tensor:
    chosen = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    chosen[2:5, 1:7] = True
    chosen[6, 8] = True
    return chosen


@pytest.fixture
def posterior(draw) -> Posterior:
    return Posterior.from_images(draw(12, 2, ROWS, COLUMNS) + 3 * draw(2, ROWS, COLUMNS, seed=1))


def other(mask: torch.Tensor) -> torch.Tensor:
    return mask.flip(0)


# ---- One region


def test_the_mean_of_a_region_is_that_of_the_magnitude_of_the_mean(posterior, mask):
    # A sum of nineteen terms in double precision: rounding.
    torch.testing.assert_close(
        posterior.region(mask).mean, posterior.mean.abs()[:, mask].mean(dim=1), rtol=1e-13, atol=0
    )


def test_weights_weigh(posterior, mask):
    weights = mask.double()
    weights[3, 3] = 0.25
    magnitude = posterior.mean.abs()
    expected = (magnitude * weights).sum(dim=(1, 2)) / weights.sum()
    torch.testing.assert_close(posterior.region(weights).mean, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(posterior.region(7 * weights).values, posterior.region(weights).values)


def test_a_region_of_one_pixel_is_that_pixel(posterior):
    one = torch.zeros(ROWS, COLUMNS)
    one[4, 5] = 1
    region, (lower, upper) = posterior.region(one), posterior.interval(0.9)
    torch.testing.assert_close(region.mean, posterior.mean.abs()[:, 4, 5])
    torch.testing.assert_close(region.std, posterior.std[:, 4, 5])
    torch.testing.assert_close(region.interval(0.9), (lower[:, 4, 5], upper[:, 4, 5]))


@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.numpy,
        lambda mask: mask.numpy()[::-1][::-1],
        lambda mask: mask.numpy().astype(">i2"),
        lambda mask: mask.numpy().astype(np.uint16),
        lambda mask: mask.tolist(),
    ],
    ids=["boolean", "negative strides", "big endian", "unsigned", "list"],
)
def test_arrays_of_any_kind_are_masks_as_well(posterior, mask, convert):
    assert torch.equal(posterior.region(convert(mask)).values, posterior.region(mask).values)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_precision_is_that_of_the_samples(posterior, mask, dtype):
    region = Posterior.from_images(posterior.images.to(dtype)).region(mask)
    assert region.values.dtype == region.interval(0.9)[0].dtype == dtype.to_real()
    assert region.values.shape == (12, 2)


def test_a_single_sample_has_a_mean_and_no_interval(draw, mask, one_line_error):
    region = Posterior.from_images(draw(1, 2, ROWS, COLUMNS)).region(mask)
    assert torch.equal(region.std, torch.zeros(2, dtype=torch.float64))
    with one_line_error("1 chain", "2 or more"):
        region.interval(0.9)


def test_an_interval_counts_chains(draw, mask):
    images = draw(12, 1, ROWS, COLUMNS) + 2
    chains = Posterior.from_samples(Samples(images, 0, torch.arange(3).repeat_interleave(4))).region(mask)
    single = Posterior.from_images(images).region(mask)
    assert (chains.num_chains, single.num_chains) == (3, 12)
    assert torch.equal(chains.values, single.values)
    (lower, upper), (shorter, _) = chains.interval(0.9), single.interval(0.9)
    # Student's 95 % quantiles of 2 and 11 degrees of freedom: 2.920 and 1.796.
    expected = 2.920 * (1 + 1 / 3) ** 0.5 / (1.796 * (1 + 1 / 12) ** 0.5)
    assert float((upper - lower) / 2 / (chains.mean - shorter)) == pytest.approx(expected, rel=1e-3)


def test_the_spread_of_independent_pixels_is_that_of_one_over_the_square_root_of_their_number(draw, mask):
    # The relative standard error of a standard deviation of n samples is 1/√(2n); five of them.
    region = Posterior.from_images(10 + draw(4000, 1, ROWS, COLUMNS)).region(mask)
    assert float(region.std) == pytest.approx(1 / int(mask.sum()) ** 0.5, rel=5 / 8000**0.5)


def test_the_spread_of_pixels_that_go_together_is_that_of_one(draw, mask):
    together = 10 + draw(50, 1, 1, 1).expand(-1, -1, ROWS, COLUMNS)
    posterior = Posterior.from_images(together)
    torch.testing.assert_close(posterior.region(mask).std, posterior.std[:, 0, 0])


# ---- Two regions


def test_a_region_less_itself_is_zero_and_over_itself_one_with_certainty(posterior, mask):
    region = posterior.region(mask)
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for compared, value in ((region - region, zero), (region / region, one)):
        assert torch.equal(compared.mean, value)
        assert torch.equal(compared.std, zero)
        assert all(torch.equal(end, value) for end in compared.interval(0.9))


def test_differences_and_ratios_are_taken_sample_by_sample(posterior, mask):
    a, b = posterior.region(mask), posterior.region(other(mask))
    torch.testing.assert_close((a - b).mean, a.mean - b.mean)
    torch.testing.assert_close((a / b).mean, (a.values / b.values).mean(dim=0))
    assert (a - b).num_chains == (a / b).num_chains == 12


def simulated(kind: str, level: float, *, trials: int = 4000, chains: int = 8) -> float:
    """The share of intervals that hold the value of one more sample, of Gaussian posteriors of two regions.

    They share half of their variance; as many trials as images of a batch.
    """
    generator = torch.Generator().manual_seed(5)
    shared, a, b = torch.randn(3, chains + 1, trials, generator=generator, dtype=torch.float64)
    regions = [Region(mean + 0.03 * (shared + own), chains + 1) for mean, own in ((2.0, a), (1.0, b))]
    first, second = (Region(region.values[:-1], chains) for region in regions)
    if kind == "difference":
        lower, upper = (first - second).interval(level)
        truth = regions[0].values[-1] - regions[1].values[-1]
    else:
        lower, upper = (first / second).interval(level)
        truth = regions[0].values[-1] / regions[1].values[-1]
    return float(((lower <= truth) & (truth <= upper)).double().mean())


@pytest.mark.parametrize("kind", ["difference", "ratio"])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_interval_of_two_regions_holds_its_share(kind, level):
    # Four standard errors of a share; a ratio of regions 4 % uncertain is Gaussian to far less.
    assert abs(simulated(kind, level) - level) <= 4 * (level * (1 - level) / 4000) ** 0.5


def test_slices_come_to_their_volume_pixel_by_pixel(draw, mask):
    images = draw(6, 3, ROWS, COLUMNS) + 2
    posterior = Posterior.from_images(images)
    parts = [Posterior.from_images(images[:, [number]]) for number in range(3)]
    masks = [mask, other(mask) & mask, mask | other(mask)]
    sizes = [int(part.sum()) for part in masks]
    whole = pooled([part.region(chosen) for part, chosen in zip(parts, masks, strict=True)], sizes)
    every = posterior.in_phase(images)
    expected = sum(every[:, number][:, chosen].sum(dim=1) for number, chosen in enumerate(masks)) / sum(sizes)
    torch.testing.assert_close(whole.values[:, 0], expected)
    assert whole.num_chains == 6


# ---- What is refused


def changed(mask: torch.Tensor, value: float) -> torch.Tensor:
    weights = mask.double()
    weights[0, 0] = value
    return weights


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda mask: mask[:5], ["mask has shape (5, 9)", "allowed: (8, 9)"]),
        (lambda mask: mask[None], ["mask has shape (1, 8, 9)", "allowed: (8, 9)"]),
        (torch.zeros_like, ["mask is 0 everywhere", "one pixel"]),
        (lambda mask: changed(mask, -2), ["mask holds -2 to 1", "finite numbers >= 0"]),
        (lambda mask: changed(mask, float("nan")), ["mask holds nan", "finite numbers >= 0"]),
        (lambda mask: changed(mask, float("inf")), ["mask holds 0 to inf", "finite numbers >= 0"]),
        (lambda mask: mask * 1j, ["mask has type torch.complex64", "boolean or real"]),
    ],
    ids=["shape", "axes", "empty", "negative", "not a number", "infinite", "complex"],
)
def test_masks_that_are_none_are_refused(posterior, mask, make, words, one_line_error):
    with one_line_error(*words):
        posterior.region(make(mask))


def test_regions_of_different_posteriors_are_not_compared(draw, posterior, mask, one_line_error):
    region = posterior.region(mask)
    for images in (draw(5, 2, ROWS, COLUMNS), draw(12, 1, ROWS, COLUMNS)):
        stranger = Posterior.from_images(images + 9).region(mask)
        said = f"{len(images)} samples of {len(images)} chains for {images.shape[1]} images"
        for compare in (
            lambda other: region - other,
            lambda other: region / other,
            lambda other: pooled([region, other], [1, 1]),
        ):
            with one_line_error(said, "allowed", "12 samples of 12 chains for 2 images"):
                compare(stranger)


def test_nothing_is_divided_by_what_may_be_zero(draw, posterior, mask, one_line_error):
    air = Posterior.from_images(draw(12, 2, ROWS, COLUMNS, seed=3)).region(mask)
    with one_line_error("divisor", "allowed", "above 0"):
        posterior.region(mask) / (air - air)
