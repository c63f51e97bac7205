"""The result of every sampler, and what samplers share."""

import pytest
import torch

from direct_deepen.errors import DivergenceError
from direct_deepen.inference.samples import Samples, chain_groups, require_finite_samples


@pytest.mark.parametrize(
    ("samples", "batch", "most", "sizes"),
    [(5, 1, 2, [2, 2, 1]), (5, 2, 4, [2, 2, 1]), (3, 8, 4, [1, 1, 1]), (4, 1, 32, [4])],
)
def test_groups_hold_as_many_images_as_allowed_and_a_sample_at_least(samples, batch, most, sizes):
    groups = chain_groups(samples, batch, most)
    assert [group.stop - group.start for group in groups] == sizes
    assert [chain for group in groups for chain in range(samples)[group]] == list(range(samples))


@pytest.mark.parametrize(("samples", "most", "word"), [(0, 4, "num_samples"), (4, 0, "max_images")])
def test_no_sample_and_no_room_are_refused(one_line_error, samples, most, word):
    with one_line_error(word, "allowed"):
        chain_groups(samples, 1, most)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_is_told_with_its_level(one_line_error, draw, value):
    images = draw(2, 1, 3, 3)
    require_finite_samples(images, "sampler", 0.5)
    images[1, 0, 0, 0] = value
    with one_line_error("sampler", "1 of 2", "[[1, 0]]", "noise level 0.5", "finite values", error=DivergenceError):
        require_finite_samples(images, "sampler", 0.5)


def test_independent_samples_are_chains_of_one_state(draw):
    samples = Samples.independent(draw(5, 2, 3, 3), gradient_evaluations=7)
    assert samples.gradient_evaluations == 7
    assert samples.chain.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(samples.by_chain(), samples.images[:, None])
    assert samples.step_size is samples.cost_trace is samples.burn_in is None
