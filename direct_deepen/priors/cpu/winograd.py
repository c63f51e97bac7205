"""3×3 convolutions with half the products: Winograd's algorithm along the columns."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

CHANNELS, PIXELS_OF_A_THREAD = 64, 4096
"""Channels in and out, and pixels of a batch for every thread, from which the algorithm is faster (projects/speed)."""

# F(4, 3) at the points 0, ±1, ±2 and infinity: six numbers of a kernel of three.
_OF_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


class Convolution(nn.Conv2d):
    """A 3×3 convolution that keeps the size, by Winograd's algorithm where that is faster; weights as ``nn.Conv2d``.

    That is on a CPU, in single or double precision, with many channels and pixels. The rounding error is twice that of
    the direct sum; 16 bits would lose their last digits to the sums and differences.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution; (batch, in channels, height, width) → (batch, out channels, height, width)."""
        pixels = x.shape[0] * x.shape[-2] * x.shape[-1]
        if (
            x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and not torch.is_autocast_enabled("cpu")
            and min(self.in_channels, self.out_channels) >= CHANNELS
            and pixels >= PIXELS_OF_A_THREAD * torch.get_num_threads()
        ):
            return winograd_convolution(x, self.weight, self.bias)
        return super().forward(x)


def winograd_convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    r"""Return the 3×3 convolution that keeps the size, differentiable as often as one likes.

    Four rows of the result need six convolutions by kernels of one row instead of twelve. With the rows d₀ … d₅ that
    four rows y₀ … y₃ depend on, and the kernel's rows g,

    .. math:: y &= M^T \bigl((G g) * (B^T d)\bigr), \qquad
              G^T = \frac{1}{24} \begin{pmatrix} 6&-4&-4&1&1&0\\ 0&-4&4&2&-2&0\\ 0&-4&-4&4&4&24 \end{pmatrix}, \\
              B^T &= \begin{pmatrix} 4&0&-5&0&1&0\\ 0&-4&-4&1&1&0\\ 0&4&-4&-1&1&0\\ 0&-2&-1&2&1&0\\ 0&2&-1&-2&1&0\\
              0&4&0&-5&0&1 \end{pmatrix}, \quad
              M^T = \begin{pmatrix} 1&1&1&1&1&0\\ 0&1&-1&2&-2&0\\ 0&1&1&4&4&0\\ 0&1&-1&8&-8&1 \end{pmatrix},

    each product a convolution along the row (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016,
    section 4, in one dimension). The gradient by the input is the same convolution by the turned kernel with its
    channels swapped.

    x is real (batch, channel, height, width), fastest with channels last in memory, as the result has them; ``weight``
    is (out channels, channel, 3, 3), ``bias`` (out channels,).
    """
    return _Winograd.apply(x, weight, bias)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        missing = -x.shape[2] % 4
        if missing == 0:
            return _convolved_by_fours(x, weight, bias)
        padded = _convolved_by_fours(functional.pad(x, (0, 0, 0, missing)), weight, bias)
        return padded[:, :, :-missing].clone(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        # Of differentiable pieces, for second derivatives.
        return (
            winograd_convolution(gradient, weight.flip(2, 3).transpose(0, 1)) if by_x else None,
            conv2d_weight(x, weight.shape, gradient, padding=1) if by_weight else None,
            gradient.sum(dim=(0, 2, 3)) if by_bias else None,
        )


def _convolved_by_fours(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the convolution of images whose height is a multiple of four; every step takes all blocks at once."""
    # (6, out, in, 1, 3): a kernel of one row each, channels last in memory.
    kernels = torch.einsum("tr,oirc->toci", weight.new_tensor(_OF_KERNEL), weight).unsqueeze(2).permute(0, 1, 4, 2, 3)

    def convolved(rows: torch.Tensor, number: int, bias: torch.Tensor | None = None) -> torch.Tensor:
        return functional.conv2d(rows, kernels[number], bias, padding=(0, 1))

    # (batch, channel, height / 4, width) each. The rows around a block, d0 and d5, are d4 of the block above and d1 of
    # the one below, and zero outside the image.
    d1, d2, d3, d4 = x.unflatten(2, (-1, 4)).unbind(3)
    shape = (x.shape[0], len(weight), *x.shape[2:])
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    y0, y1, y2, y3 = result.unflatten(2, (-1, 4)).unbind(3)

    def write_products(point: int, number: int, y_sum: torch.Tensor, y_difference: torch.Tensor) -> None:
        """Write sum and difference of the products at the points ±1 or ±2."""
        factor = 4 / point**2
        even, odd = torch.sub(d4, d2, alpha=factor), torch.sub(d3, d1, alpha=factor)
        # The first of all is in all four rows of the result with weight one: there the bias goes.
        plus = convolved(torch.add(even, odd, alpha=point), number, bias if number == 1 else None)
        minus = convolved(torch.sub(even, odd, alpha=point), number + 1)
        torch.add(plus, minus, out=y_sum)
        torch.sub(plus, minus, out=y_difference)

    write_products(1, 1, y0, y1)
    write_products(2, 3, y2, y3)
    y0.add_(y2)
    y1.add_(y3, alpha=2)
    torch.add(y0, y2, alpha=3, out=y2)
    torch.add(y1, y3, alpha=6, out=y3)
    first = torch.sub(d4, d2, alpha=5)
    first[:, :, 1:].add_(d4[:, :, :-1], alpha=4)
    y0.add_(convolved(first, 0))
    last = torch.mul(d3, -5).add_(d1, alpha=4)
    last[:, :, :-1].add_(d1[:, :, 1:])
    y3.add_(convolved(last, 5))
    return result
