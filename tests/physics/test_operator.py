"""What the core does with operators that offer only forward, adjoint and normal."""

import pytest
import torch

from direct_deepen.physics.operator import SupportsSelection, norm_squared, over_chains


@pytest.mark.parametrize("name", ["forward", "adjoint", "normal"])
def test_chains_go_through_a_plain_operator_one_by_one(random_operator, plain_operator, draw, name):
    A = random_operator()
    argument = draw(5, 2, *((3,) if name == "adjoint" else ()), 8, 8, seed=2)
    assert over_chains(A) is A
    expected = getattr(A, name)(argument)
    # The same transforms in batches of another shape: last digits.
    torch.testing.assert_close(getattr(over_chains(plain_operator(A)), name)(argument), expected, rtol=0, atol=1e-14)


def test_a_part_of_the_batch_and_leading_dimensions_are_two_capabilities(inpainting_operator, draw):
    class Selectable(inpainting_operator):
        takes_leading_dimensions = False

        def forward(self, image):
            assert image.ndim == 3
            return super().forward(image)

        def select(self, index):
            return Selectable(self.mask[index])

    A = Selectable(torch.ones(2, 4, 4))
    assert isinstance(A, SupportsSelection)
    images = draw(5, 2, 4, 4)
    assert torch.equal(over_chains(A).forward(images), images)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("global_generators_untouched")
def test_power_iteration_approaches_the_norm_of_a_plain_operator_from_below(
    random_operator, plain_operator, dense_normal, draw, seed
):
    A = random_operator(1, 2, seed=seed, normalized=False)
    largest = float(torch.linalg.eigvalsh(dense_normal(A))[-1])
    value = norm_squared(plain_operator(A), draw(1, 8, 8))
    assert value <= largest * (1 + 1e-12)  # rounding of the eigenvalue
    assert value >= 0.95 * largest  # "a few percent" after 20 iterations, which the callers' safety factors cover


def test_norm_is_the_operators_own_bound_if_it_has_one(random_operator, draw):
    A = random_operator(1, 2, normalized=False)
    assert norm_squared(A, draw(1, 8, 8)) == A.norm_squared_bound


def test_norm_of_the_zero_operator_is_zero(inpainting_operator, draw):
    assert norm_squared(inpainting_operator(torch.zeros(1, 4, 4)), draw(1, 4, 4)) == 0.0
