"""Winograd's algorithm gives what the direct convolution gives, in value and derivatives, and runs where it pays."""

import pytest
import torch
from torch.nn import functional

from direct_deepen.priors.cpu import winograd
from direct_deepen.priors.cpu.winograd import Convolution, winograd_convolution

# Sums of some hundred terms of order one in double precision, in another order.
ROUNDING = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture
def numbers():
    """Draw real numbers of double precision."""

    def draw(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 5, 8, 7), (3, 8, 5, 1), (2, 1, 14, 2), (1, 3, 1, 3)])
def test_it_is_the_convolution(numbers, shape, bias, layout):
    x, weight = numbers(*shape).contiguous(memory_format=layout), numbers(6, shape[1], 3, 3, seed=1)
    offset = numbers(6, seed=2) if bias else None
    before = x.clone()
    result = winograd_convolution(x, weight, offset)
    torch.testing.assert_close(result, functional.conv2d(x, weight, offset, padding=1), **ROUNDING)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before)


@pytest.mark.parametrize("height", [4, 5])
def test_it_has_its_first_and_second_derivatives(numbers, height):
    shapes = [(2, 2, height, 3), (3, 2, 3, 3), (3,)]
    x, weight, bias = (numbers(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes))
    assert torch.autograd.gradcheck(winograd_convolution, (x, weight, bias))
    assert torch.autograd.gradgradcheck(winograd_convolution, (x, weight, bias))
    assert torch.autograd.gradgradcheck(winograd_convolution, (x, weight))


def test_it_rounds_about_as_the_sum_does(numbers):
    x, weight = numbers(1, 64, 32, 32), numbers(64, 64, 3, 3, seed=1)
    exact = functional.conv2d(x, weight, padding=1)

    def error(convolution):
        return float((convolution(x.float(), weight.float()).double() - exact).norm() / exact.norm())

    # Twice was measured; that of F(6, 3) would be ten times as large.
    assert error(winograd_convolution) < 4 * error(lambda x, weight: functional.conv2d(x, weight, padding=1))


@pytest.mark.parametrize(
    ("channels", "out_channels", "dtype", "size", "taken"),
    [
        (64, 64, torch.float32, 100, True),
        (64, 70, torch.float64, 100, True),
        (64, 64, torch.float32, 8, False),
        (64, 2, torch.float32, 100, False),
        (32, 64, torch.float32, 100, False),
        (64, 64, torch.bfloat16, 100, False),
    ],
)
def test_it_runs_on_many_channels_and_pixels_in_full_precision(monkeypatch, channels, out_channels, dtype, size, taken):
    monkeypatch.setattr(winograd, "PIXELS_OF_A_THREAD", 100**2 // torch.get_num_threads())
    assert (
        _takes_winograd(Convolution(channels, out_channels).to(dtype), torch.ones(1, channels, size, size).to(dtype))
        == taken
    )


def test_autocast_keeps_it_out(monkeypatch):
    monkeypatch.setattr(winograd, "PIXELS_OF_A_THREAD", 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not _takes_winograd(Convolution(64, 64), torch.ones(1, 64, 8, 8))


def _takes_winograd(layer: Convolution, x: torch.Tensor) -> bool:
    return "Winograd" in type(layer(x).grad_fn).__name__


def test_weights_are_those_of_pytorch():
    plain = torch.nn.Conv2d(3, 4, kernel_size=3, padding=1)
    layer = Convolution(3, 4)
    layer.load_state_dict(plain.state_dict())
    x = torch.ones(1, 3, 5, 5)
    assert torch.equal(layer(x), plain(x))
