"""What the networks of the priors are made of."""

import pytest
import torch
from torch import nn

from direct_deepen.priors.networks import (
    ACTIVATIONS,
    MEMORY_FORMATS,
    channels_to_image,
    convolutional_stack,
    image_to_channels,
)


def stack(**changes):
    arguments = {"hidden_channels": 5, "num_layers": 4, "activation": "elu", "out_channels": 3}
    return convolutional_stack(**arguments | changes)


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 5)], ids=str)
def test_real_and_imaginary_part_become_channels_and_come_back(draw, size):
    image = draw(2, *size)
    channels = image_to_channels(image, nn.Conv2d(2, 2, 3).double(), len(size))
    assert torch.equal(channels[:, 0], image.real)
    assert torch.equal(channels[:, 1], image.imag)
    assert torch.equal(channels_to_image(channels), image)


def test_a_conjugate_view_is_read_as_what_it_is(draw):
    image = draw(1, 3, 3)
    channels = image_to_channels(image.conj(), nn.Conv2d(2, 2, 3).double())
    assert torch.equal(channels[:, 1], -image.imag)


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 5)], ids=str)
def test_channels_lie_last_in_memory_without_a_copy(draw, size):
    image = draw(2, *size)
    channels = image_to_channels(image, nn.Conv2d(2, 2, 3).double(), len(size))
    assert channels.is_contiguous(memory_format=MEMORY_FORMATS[len(size)])
    assert channels.data_ptr() == image.data_ptr()


@pytest.mark.parametrize("size", [(6, 7), (4, 6, 7)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_stack_has_its_layers_with_an_activation_between_and_keeps_the_size(activation, size):
    layers = stack(activation=activation, dimensions=len(size))
    convolutions = layers[::2]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(2, 5), (5, 5), (5, 5), (5, 3)]
    assert all(c.kernel_size == len(size) * (3,) for c in convolutions)
    assert [type(layer) for layer in layers][1::2] == 3 * [type(ACTIVATIONS[activation]())]
    assert layers(torch.zeros(1, 2, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("changes", "word"), [({"num_layers": 1}, "num_layers"), ({"hidden_channels": 0}, "hidden_channels"),
                          ({"activation": "tanh"}, "'tanh'"), ({"dimensions": 1}, "dimensions")]
)  # fmt: skip
def test_a_stack_of_nothing_is_refused(one_line_error, changes, word):
    with one_line_error(word, "allowed"):
        stack(**changes)
