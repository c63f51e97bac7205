r"""A pass through a stack of 3×3 convolutions and back, without a graph, in memory that is used again and again.

Automatic differentiation allocates new memory for every activation, and on a CPU the system clears each page of it
first: at 320×320 and 64 channels that costs as much as one convolution in four. Here the activations of a pass lie in
scratch memory that the next pass takes over, and an activation follows its convolution strip by strip, while the strip
lies in the cache. The arithmetic is that of back-propagation: for layers :math:`y_l = a(W_l * y_{l-1} + b_l)`,

.. math:: g_{l-1} = a'(y_{l-1}) \odot (W_l^T \star g_l), \qquad
          \partial W_l = g_l \star y_{l-1}, \qquad \partial b_l = \sum g_l,

with g_l the derivative by the convolution's result and :math:`W^T \star` the convolution by the turned kernel with its
channels swapped.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from direct_deepen.priors.cpu.activations import KERNELS, Kernel
from direct_deepen.priors.cpu.fast_convolutions import convolution_by_rows_of_four, convolution_to_few_channels
from direct_deepen.priors.cpu.scratch import Scratch

_STRIP_PIXELS = 25600
"""Pixels of a strip for every thread of a CPU: 6 MB at 64 channels, which stay in its last cache."""
_WINOGRAD_CHANNELS, _WINOGRAD_PIXELS = 64, 4096
"""Channels, and pixels of a strip for every thread, from which Winograd's algorithm is faster (projects/speed)."""
_GPU_PIXELS = 2**22
"""Pixels of a pass on a GPU: 1 GiB for every activation of 64 channels."""


def images_at_once(images: torch.Tensor) -> int:
    """Return how many of such images a pass is to take: on a CPU small ones fill a strip, large ones go one by one."""
    pixels = _STRIP_PIXELS * torch.get_num_threads() if images.device.type == "cpu" else _GPU_PIXELS
    return max(1, pixels // images.shape[-2:].numel())


def has_kernels(stack: nn.Module) -> bool:
    """Say whether a pass can run the network: 3×3 convolutions, each followed by at most one activation of a kernel."""
    layers = list(stack) if isinstance(stack, nn.Sequential) else []
    convolutions = [_is_convolution(layer) for layer in layers]
    return (
        any(convolutions[:1])
        and all(known or type(layer) in KERNELS for known, layer in zip(convolutions, layers, strict=True))
        and all(before or after for before, after in pairwise(convolutions))
    )


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and (
        (layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups, layer.padding_mode)
        == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    )


class ConvolutionalPass:
    """Images on their way through a network; its memory is that of the next pass in the same thread.

    Parameters
    ----------
    stack
        A network for which :func:`has_kernels` holds.
    channels
        Images, real (batch, channel, height, width). Convolutions run, and activations lie, in their precision; what
        comes between two convolutions is computed in single precision at least.

    Attributes
    ----------
    output
        The network's output, (batch, channel, height, width), until :meth:`pull_back` takes its memory.
    """

    def __init__(self, stack: nn.Sequential, channels: torch.Tensor) -> None:
        self._convolutions: list[nn.Conv2d] = []
        self._kernels: list[Kernel | None] = []
        for layer in stack:
            if isinstance(layer, nn.Conv2d):
                self._convolutions.append(layer)
                self._kernels.append(None)
            else:
                self._kernels[-1] = KERNELS[type(layer)]
        widths = [channels.shape[1], *(convolution.out_channels for convolution in self._convolutions)]
        # The gradient by an activation later takes the place of the activation.
        self._activations = _scratch(channels, widths)
        self._activations[0][:, :, 1:-1].copy_(channels)
        for convolution, kernel, (source, target) in zip(
            self._convolutions, self._kernels, pairwise(self._activations), strict=True
        ):
            for rows, strip in _convolved_strips(source, convolution.weight, convolution.bias):
                _write(kernel, strip, target[:, :, rows])
        self.output = self._activations[-1][:, :, 1:-1]

    def pull_back(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient by the images, (batch, channel, height, width), from that by the output; once only."""
        for _ in self._backward(gradient):
            pass
        return self._activations[0][:, :, 1:-1].clone(memory_format=torch.channels_last)

    def pull_back_to_weights(self, gradient: torch.Tensor) -> list[torch.Tensor]:
        """Return the gradients by the weights, in the order of the network's parameters; once only."""
        gradients: list[torch.Tensor] = []
        for layer in self._backward(gradient, last=1):
            convolution, source, target = self._convolutions[layer], *self._activations[layer : layer + 2]
            weight = torch.zeros_like(convolution.weight)
            for first, rows in _strips(source):
                weight += conv2d_weight(
                    source[:, :, first : first + rows + 2],
                    list(convolution.weight.shape),
                    target[:, :, first + 1 : first + rows + 1],
                    padding=(0, 1),
                )
            bias = [] if convolution.bias is None else [target.sum(dim=(0, 2, 3))]
            gradients = [weight, *bias, *gradients]
        return gradients

    def _backward(self, gradient: torch.Tensor, last: int = 0) -> Iterator[int]:
        """Yield the layers from the last to the first, each when the gradient by its convolution's result is known."""
        _pull_back(self._kernels[-1], gradient, self._activations[-1][:, :, 1:-1])
        for layer in reversed(range(len(self._convolutions))):
            yield layer
            if layer < last:
                return
            turned = self._convolutions[layer].weight.flip(2, 3).transpose(0, 1)
            below, source, target = self._kernels[layer - 1], self._activations[layer + 1], self._activations[layer]
            for rows, strip in _convolved_strips(source, turned, None):
                _pull_back(None if layer == 0 else below, strip, target[:, :, rows])


def _write(kernel: Kernel | None, x: torch.Tensor, target: torch.Tensor) -> None:
    """Put the activation of x into ``target``."""
    if kernel is None:
        target.copy_(x)
    elif x.dtype == target.dtype:
        kernel.write(x, target)
    else:
        activation = torch.empty_like(x)
        kernel.write(x, activation)
        target.copy_(activation)


def _pull_back(kernel: Kernel | None, gradient: torch.Tensor, target: torch.Tensor) -> None:
    """Put the gradient by what an activation was made of in the place of the activation."""
    if kernel is None:
        target.copy_(gradient)
    elif gradient.dtype == target.dtype:
        kernel.pull_back(gradient, target, target)
    else:
        by_input = torch.empty_like(gradient)
        kernel.pull_back(gradient, target.to(gradient.dtype), by_input)
        target.copy_(by_input)


def _strips(padded: torch.Tensor) -> Iterator[tuple[int, int]]:
    """First row and number of rows of the strips of images with a row of zeros above and below."""
    batch, _, height, width = padded.shape
    height -= 2
    if padded.device.type != "cpu":
        yield 0, height
        return
    rows = max(4, _STRIP_PIXELS * torch.get_num_threads() // (batch * width) // 4 * 4)
    # Strips of four, eight, … rows, and the rest.
    for first in range(0, height // 4 * 4, rows):
        yield first, min(rows, height // 4 * 4 - first)
    if height % 4:
        yield height // 4 * 4, height % 4


def _convolved_strips(
    source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Convolve images with a row of zeros above and below; yield rows of such images and what belongs there.

    What belongs there is of single precision at least.
    """
    weight = weight.to(source.dtype)
    bias = None if bias is None else bias.to(source.dtype)
    work_dtype = torch.promote_types(source.dtype, torch.float32)
    on_cpu, width = source.device.type == "cpu", source.shape[0] * source.shape[3]
    narrow = on_cpu and 9 * weight.shape[0] <= weight.shape[1]
    # Its sums and differences would cost a low precision its last digits.
    wide = on_cpu and min(weight.shape[:2]) >= _WINOGRAD_CHANNELS and source.dtype == work_dtype
    for first, rows in _strips(source):
        strip = source[:, :, first : first + rows + 2]
        if narrow:
            result = convolution_to_few_channels(strip, weight, bias)
        elif wide and rows % 4 == 0 and rows * width >= _WINOGRAD_PIXELS * torch.get_num_threads():
            result = convolution_by_rows_of_four(strip, weight, bias)
        else:
            result = functional.conv2d(strip, weight, bias, padding=(0, 1))
        yield slice(first + 1, first + rows + 1), result.to(work_dtype)


_ACTIVATIONS = Scratch()


def _scratch(like: torch.Tensor, widths: list[int]) -> list[torch.Tensor]:
    """Return (batch, width, height + 2, width) for every number of channels, the first and the last row zero."""
    batch, _, height, width = like.shape
    lengths = [batch * (height + 2) * width * channels for channels in widths]
    # On a GPU PyTorch's own allocator keeps memory for the next pass.
    cpu = like.device.type == "cpu"
    memory = _ACTIVATIONS.stretch(sum(lengths), like.dtype) if cpu else like.new_empty(sum(lengths))
    buffers = []
    for channels, stretch in zip(widths, memory.split(lengths), strict=True):
        buffer = stretch.view(batch, height + 2, width, channels).permute(0, 3, 1, 2)
        buffer[:, :, :: height + 1] = 0
        buffers.append(buffer)
    return buffers
