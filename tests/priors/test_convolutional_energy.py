"""Energies of convolutions: in parts they are what they are at once, and little is kept of a batch."""

import pytest
import torch
from torch.nn import functional

from direct_deepen.priors import ConvEnergy, QuadraticEnergy, convolutional_energy
from direct_deepen.priors.convolutional_energy import ConvolutionalEnergy, images_at_once
from direct_deepen.priors.cpu import winograd
from direct_deepen.priors.networks import BORDERS, convolutional_stack

# Sums of some hundred terms of order one in double precision, in another order.
ROUNDING = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(params=[True, False], ids=["winograd", "direct"])
def _convolutions(request, monkeypatch):
    """Take Winograd's algorithm for every convolution, or for none."""
    monkeypatch.setattr(winograd, "CHANNELS", 1 if request.param else 10**9)
    monkeypatch.setattr(winograd, "PIXELS_OF_A_THREAD", 1)


@pytest.fixture(params=[1, 2, 10], ids="{} at once".format)
def _parts(request, monkeypatch):
    monkeypatch.setattr(convolutional_energy, "images_at_once", lambda *_: request.param)


def quadratic_of(dimensions):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return QuadraticEnergy(hidden_channels=20, num_layers=3, dimensions=dimensions).double()


@pytest.fixture
def quadratic():
    return quadratic_of(2)


def test_small_images_pass_together_and_large_ones_alone():
    assert images_at_once(torch.empty(8, 4000, 4000, device="meta")) == 1
    assert images_at_once(torch.empty(8, 16, 16)) >= 100
    assert images_at_once(torch.empty(8, 320, 320, device="meta")) > images_at_once(torch.empty(8, 320, 320))
    assert images_at_once(torch.empty(8, 200, 16, 16), dimensions=3) == 1


@pytest.mark.usefixtures("_convolutions", "_parts")
def test_gradients_are_those_of_plain_convolutions(quadratic, draw):
    image = draw(3, 9, 7).requires_grad_()
    x = torch.stack([image.real, image.imag], dim=1)
    first, second, third = (layer for layer in quadratic.residual if isinstance(layer, torch.nn.Conv2d))
    for layer in (first, second):
        x = functional.elu(functional.conv2d(x, layer.weight, layer.bias, padding=1))
    expected = 0.5 * functional.conv2d(x, third.weight, third.bias, padding=1).square().sum(dim=(1, 2, 3))
    (expected_gradient,) = torch.autograd.grad(expected.sum(), image)
    value, gradient = quadratic.value_and_grad(image.detach())
    torch.testing.assert_close(value, expected.detach(), **ROUNDING)
    torch.testing.assert_close(gradient, expected_gradient, **ROUNDING)


@pytest.mark.usefixtures("_convolutions", "_parts")
@pytest.mark.parametrize(
    "size", [(9, 7), (2, 3), (8, 3, 4)], ids=["larger than what a pixel sees", "smaller", "a volume"]
)
def test_a_periodic_border_is_circular_padding_of_every_convolution(draw, size):
    quadratic, image = quadratic_of(len(size)), draw(3, *size).requires_grad_()
    x = torch.stack([image.real, image.imag], dim=1)
    first, second, third = quadratic.residual[::2]
    convolution = {2: functional.conv2d, 3: functional.conv3d}[len(size)]

    def convolved(x, layer):
        return convolution(functional.pad(x, 2 * len(size) * (1,), mode="circular"), layer.weight, layer.bias)

    residual = convolved(functional.elu(convolved(functional.elu(convolved(x, first)), second)), third)
    expected = 0.5 * residual.square().flatten(1).sum(dim=1)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), image)
    quadratic.border = "periodic"
    value, gradient = quadratic.value_and_grad(image.detach())
    torch.testing.assert_close(value, expected.detach(), **ROUNDING)
    torch.testing.assert_close(gradient, expected_gradient, **ROUNDING)
    denoised = image - torch.complex(residual[:, 0], residual[:, 1])
    torch.testing.assert_close(quadratic.denoise(image), denoised, **ROUNDING)


@pytest.mark.parametrize("kind", [QuadraticEnergy, ConvEnergy])
def test_with_a_periodic_border_an_image_may_lie_anywhere_in_the_field_of_view(kind, draw):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        energy = kind(hidden_channels=4, num_layers=3, activation="elu", border="periodic").double()
    image = draw(2, 9, 7)
    value, gradient = energy.value_and_grad(image)
    moved_value, moved_gradient = energy.value_and_grad(image.roll((4, -3), dims=(1, 2)))
    torch.testing.assert_close(moved_value, value, **ROUNDING)
    torch.testing.assert_close(moved_gradient, gradient.roll((4, -3), dims=(1, 2)), **ROUNDING)
    # With zeros beyond the border it is another image.
    energy.border = "zeros"
    with torch.no_grad():
        assert float((energy(image.roll((4, -3), dims=(1, 2))) / energy(image) - 1).abs().min()) > 1e-4


@pytest.mark.usefixtures("_convolutions", "_parts")
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kind", [QuadraticEnergy, ConvEnergy])
def test_derivatives_by_the_weights_are_those_of_one_graph(kind, border, draw):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        energy = kind(hidden_channels=4, num_layers=3, activation="elu", border=border).double()
    weights, factors = list(energy.parameters()), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)

    def derivatives(image):
        value = energy(image)
        first = torch.autograd.grad(value, weights, factors, create_graph=True)
        size = sum(gradient.square().sum() for gradient in first)
        return [value, *first, *torch.autograd.grad(size, weights, materialize_grads=True)]

    image = draw(3, 6, 5)
    # An image that asks for a gradient keeps its graph.
    expected = derivatives(image.clone().requires_grad_())
    for mine, theirs in zip(derivatives(image), expected, strict=True):
        torch.testing.assert_close(mine, theirs, **ROUNDING)


def test_frozen_weights_of_a_head_get_no_gradient(draw):
    energy = ConvEnergy(hidden_channels=4, num_layers=2).double()
    energy.head.weight.requires_grad_(requires_grad=False)
    energy(draw(2, 5, 7)).sum().backward()
    assert energy.head.weight.grad is None
    assert energy.head.bias.grad is not None
    assert all(weight.grad is not None for weight in energy.features.parameters())


def test_nothing_is_kept_of_a_batch_but_its_images(quadratic, draw):
    images, held = draw(3, 5, 7), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor):
        quadratic(images)
    # Early versions of PyTorch keep an empty tensor besides.
    assert [tuple(tensor.shape) for tensor in held if tensor.numel() > 0] == [(3, 2, 5, 7)]


class SumOfFeatures(ConvolutionalEnergy):
    """Note the precision of the features that the head gets."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = convolutional_stack(3, 2, "elu", out_channels=1)
        self.found: list[torch.dtype] = []

    @property
    def stack(self):
        return self.layers

    def energy_of_features(self, features):
        self.found += [features.dtype, (features @ features.mT).dtype]
        return features.square().sum(dim=(1, 2, 3))


def test_of_16_bits_are_the_convolutions_alone():
    energy, image = SumOfFeatures(), torch.ones(1, 4, 5, dtype=torch.complex64)
    with torch.autocast("cpu", torch.bfloat16):
        assert energy.stack(torch.ones(1, 2, 4, 5)).dtype == torch.bfloat16
        energy(image)
        energy.value_and_grad(image)
    assert energy.found == 4 * [torch.float32]
