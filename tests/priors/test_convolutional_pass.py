"""Passes without a graph give what automatic differentiation gives, whatever the strips and parts they work in."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

from direct_deepen.priors import ConvEnergy, QuadraticEnergy
from direct_deepen.priors.convolutional_energy import ConvolutionalEnergy
from direct_deepen.priors.cpu import convolutional_pass
from direct_deepen.priors.cpu.activations import ACTIVATIONS, KERNELS, Elu
from direct_deepen.priors.cpu.convolutional_pass import (
    ConvolutionalPass,
    has_kernels,
    images_at_once,
)
from direct_deepen.priors.cpu.fast_convolutions import convolution_by_rows_of_four, convolution_to_few_channels
from direct_deepen.priors.networks import convolutional_stack

# Sums of some hundred terms of order one in double precision, in another order.
ROUNDING = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture
def numbers():
    """Draw real numbers of double precision."""

    def draw(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture
def strips_of(monkeypatch):
    """Make strips of so many pixels, or of four rows where these have more."""
    return lambda pixels: monkeypatch.setattr(
        convolutional_pass, "_STRIP_PIXELS", max(1, pixels // torch.get_num_threads())
    )


@pytest.fixture(params=[True, False])
def winograd(request, monkeypatch):
    """Take Winograd's algorithm for every convolution, or for none."""
    monkeypatch.setattr(convolutional_pass, "_WINOGRAD_CHANNELS", 1 if request.param else 10**9)
    monkeypatch.setattr(convolutional_pass, "_WINOGRAD_PIXELS", 1)


# ---- Activations


def test_elu_is_that_of_pytorch_far_out_too(numbers):
    x = torch.cat([10 * numbers(100), torch.tensor([0.0, -0.0, 1e-9, -1e-9, 800.0, -800.0, 1e300, -1e300])])
    torch.testing.assert_close(Elu()(x), functional.elu(x), rtol=1e-13, atol=1e-15)  # rounding of one
    assert bool(Elu()(torch.tensor([float("nan")])).isnan())


def test_elu_has_its_first_and_second_derivative(numbers):
    x = numbers(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(Elu(), x)
    assert torch.autograd.gradgradcheck(Elu(), x)


def test_every_activation_but_silu_has_a_kernel():
    assert {ACTIVATIONS[name] for name in ACTIVATIONS if name != "silu"} == set(KERNELS)


@pytest.mark.parametrize("layer", KERNELS)
def test_a_kernel_is_its_layer_and_its_derivative(numbers, layer):
    x, gradient = numbers(3, 50).requires_grad_(), numbers(3, 50, seed=1)
    expected = layer()(x)
    (pulled_back,) = torch.autograd.grad(expected, x, gradient)
    output, before = torch.full_like(x, float("nan")), x.detach().clone()
    KERNELS[layer].write(x.detach(), output)
    torch.testing.assert_close(output, expected, **ROUNDING)
    assert torch.equal(x, before)
    KERNELS[layer].pull_back(gradient, output, output)  # in the place of the output, as passes do it
    torch.testing.assert_close(output, pulled_back, **ROUNDING)


# ---- Fast convolutions


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 5, 10, 7), (3, 8, 6, 1), (2, 1, 14, 2)])
def test_convolution_by_rows_of_four_is_the_convolution(numbers, shape, bias):
    x, weight = numbers(*shape), numbers(6, shape[1], 3, 3, seed=1)
    offset = numbers(6, seed=2) if bias else None
    before = x.clone()
    expected = functional.conv2d(x, weight, offset, padding=(0, 1))
    torch.testing.assert_close(convolution_by_rows_of_four(x, weight, offset), expected, **ROUNDING)
    assert torch.equal(x, before)


def test_convolution_by_rows_of_four_rounds_about_as_the_sum_does(numbers):
    x, weight = numbers(1, 64, 34, 32), numbers(64, 64, 3, 3, seed=1)
    exact = functional.conv2d(x, weight, padding=(0, 1))

    def error(convolution):
        return float((convolution(x.float(), weight.float()).double() - exact).norm() / exact.norm())

    plain = error(lambda x, weight: functional.conv2d(x, weight, padding=(0, 1)))
    # Twice was measured; that of F(6, 3) would be ten times as large.
    assert error(lambda x, weight: convolution_by_rows_of_four(x, weight, None)) < 4 * plain


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 20, 6, 7), (3, 18, 3, 1), (2, 9, 5, 2)])
def test_convolution_to_few_channels_is_the_convolution(numbers, shape, bias):
    x, weight = numbers(*shape), numbers(2, shape[1], 3, 3, seed=1)
    offset = numbers(2, seed=2) if bias else None
    expected = functional.conv2d(x, weight, offset, padding=(0, 1))
    torch.testing.assert_close(convolution_to_few_channels(x, weight, offset), expected, **ROUNDING)


# ---- Passes


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "silu"])
@pytest.mark.usefixtures("winograd")
@pytest.mark.parametrize(("batch", "pixels"), [(1, 10**6), (1, 7), (1, 60), (3, 10**6), (3, 43)])
def test_a_pass_there_and_back_is_that_of_automatic_differentiation(numbers, strips_of, activation, batch, pixels):
    # 20 hidden channels and two at the end: the last layer and the way back from the first are products of matrices.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stack = convolutional_stack(
            in_channels=2, hidden_channels=20, out_channels=2, num_layers=4, activation=activation
        ).double()
    x, gradient = numbers(batch, 2, 9, 7).requires_grad_(), numbers(batch, 2, 9, 7, seed=1)
    expected = stack(x)
    by_image, *by_weights = torch.autograd.grad(expected, [x, *stack.parameters()], gradient)

    strips_of(pixels)
    with torch.no_grad():
        passed = ConvolutionalPass(stack, x.detach())
        torch.testing.assert_close(passed.output, expected, **ROUNDING)
        torch.testing.assert_close(passed.pull_back(gradient), by_image, **ROUNDING)
        again = ConvolutionalPass(stack, x.detach()).pull_back_to_weights(gradient)
    assert len(again) == len(by_weights)
    for mine, theirs in zip(again, by_weights, strict=True):
        torch.testing.assert_close(mine, theirs, **ROUNDING)


def test_a_pass_runs_stacks_of_convolutions_with_kernels_only():
    def built(activation):
        return convolutional_stack(
            in_channels=2, hidden_channels=3, out_channels=2, num_layers=3, activation=activation
        )

    assert has_kernels(built("elu"))
    assert has_kernels(built("relu").append(nn.ReLU()))
    assert not has_kernels(built("silu"))
    assert not has_kernels(nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1)))
    assert not has_kernels(built("relu").append(nn.ReLU()).append(nn.ReLU()))
    assert not has_kernels(nn.Sequential(nn.Conv2d(2, 2, 5, padding=2)))
    assert not has_kernels(nn.Sequential(nn.Conv2d(2, 2, 3)))
    assert not has_kernels(nn.Conv2d(2, 2, 3, padding=1))
    assert not has_kernels(nn.Sequential())


def test_small_images_pass_together_and_large_ones_alone():
    assert images_at_once(torch.empty(8, 2, 4000, 4000)) == 1
    assert images_at_once(torch.empty(8, 2, 16, 16)) >= 100
    assert images_at_once(torch.empty(8, 2, 320, 320, device="meta")) > images_at_once(torch.empty(8, 2, 320, 320))


# ---- Energies


@pytest.fixture
def quadratic():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return QuadraticEnergy(hidden_channels=20, num_layers=3).double()


@pytest.mark.parametrize("pixels", [10**6, 40, 10])
def test_gradients_by_the_weights_are_those_of_automatic_differentiation(energy_case, draw, strips_of, pixels):
    energy, image = energy_case.build(5, 7), draw(4, 5, 7)
    assert isinstance(energy, ConvolutionalEnergy)
    factors = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
    # An image that asks for a gradient takes the way of automatic differentiation.
    expected_value = energy(image.clone().requires_grad_())
    expected = torch.autograd.grad(expected_value, list(energy.parameters()), factors)
    strips_of(pixels)
    value = energy(image)
    torch.testing.assert_close(value, expected_value, **ROUNDING)
    for mine, theirs in zip(torch.autograd.grad(value, list(energy.parameters()), factors), expected, strict=True):
        torch.testing.assert_close(mine, theirs, **ROUNDING)


def test_frozen_weights_of_a_head_get_no_gradient(draw):
    energy = ConvEnergy(hidden_channels=4, num_layers=2).double()
    energy.head.weight.requires_grad_(requires_grad=False)
    energy(draw(2, 5, 7)).sum().backward()
    assert energy.head.weight.grad is None
    assert energy.head.bias.grad is not None
    assert all(weight.grad is not None for weight in energy.features.parameters())


def test_nothing_is_kept_of_a_batch_but_its_images(quadratic, draw):
    # The graph holds the images and the weights themselves: nothing of the size of an activation.
    images = draw(3, 5, 7)
    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor):
        quadratic(images)
    shapes = [tuple(tensor.shape) for tensor in held]
    assert shapes == [(3, 2, 5, 7), *(tuple(weight.shape) for weight in quadratic.parameters())]


def test_a_second_derivative_by_the_weights_alone_is_refused(quadratic, draw):
    weights = list(quadratic.parameters())
    gradients = torch.autograd.grad(quadratic(draw(1, 5, 7)).sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(gradients[0].sum(), weights)


def test_what_a_pass_gave_stays_when_the_next_takes_its_memory(quadratic, draw):
    value, gradient = quadratic.value_and_grad(draw(2, 5, 7))
    copies = value.clone(), gradient.clone()
    quadratic.value_and_grad(draw(2, 5, 7, seed=1))
    assert torch.equal(value, copies[0])
    assert torch.equal(gradient, copies[1])


def test_threads_do_not_share_memory(quadratic, draw):
    images = [draw(1, 40, 40, seed=seed) for seed in range(4)]
    expected = [quadratic.value_and_grad(image)[1] for image in images]
    different = []

    def repeat(image, gradient):
        torch.set_num_threads(1)
        different.extend(
            count for count in range(20) if not torch.allclose(quadratic.value_and_grad(image)[1], gradient)
        )

    threads = [threading.Thread(target=repeat, args=pair) for pair in zip(images, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert different == []
