"""Activations of the convolutional networks, as layers and as kernels that work in memory given to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_LOG2_E = 1.4426950408889634


class Elu(nn.Module):
    """Max(x, min(eˣ, 1) − 1), ``torch.nn.ELU`` at four times its speed on a CPU.

    PyTorch takes expm1 there, which costs as much as half a convolution from 64 to 64 channels. The subtraction after
    the power loses digits of values near zero relative to themselves, never more than the rounding of one.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activation, differentiable twice."""
        result: torch.Tensor = _Elu.apply(x)
        return result


class _Elu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(x)
        _write_elu(x, output)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (output,) = ctx.saved_tensors
        # Of differentiable operations, so that score matching can go backward through it once more.
        return gradient * (output.clamp_max(0) + 1)


@dataclass(frozen=True)
class Kernel:
    """An activation without a graph, with a derivative that is read off its output: the input need not be kept.

    Attributes
    ----------
    write
        (x, output): put the activation of x, which stays as it is, into ``output``.
    pull_back
        (gradient, output, result): put ``gradient`` times the derivative into ``result``, which may be ``gradient``.
    """

    write: Callable[[torch.Tensor, torch.Tensor], None]
    pull_back: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]


def _write_relu(x: torch.Tensor, output: torch.Tensor) -> None:
    torch.clamp_min(x, 0, out=output)


def _pull_back_relu(gradient: torch.Tensor, output: torch.Tensor, result: torch.Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=result)


def _write_elu(x: torch.Tensor, output: torch.Tensor) -> None:
    if x.device.type == "cpu":
        # 2 to the power of x·log₂e: twice as fast as exp. An overflow to infinity becomes one.
        torch.mul(x, _LOG2_E, out=output).exp2_().clamp_max_(1).sub_(1)
        torch.maximum(output, x, out=output)
    else:
        torch.ops.aten.elu.out(x, 1, 1, 1, out=output)


def _pull_back_elu(gradient: torch.Tensor, output: torch.Tensor, result: torch.Tensor) -> None:
    torch.ops.aten.elu_backward.grad_input(gradient, 1, 1, 1, True, output, grad_input=result)


def _write_softplus(x: torch.Tensor, output: torch.Tensor) -> None:
    torch.ops.aten.softplus.out(x, out=output)


def _pull_back_softplus(gradient: torch.Tensor, output: torch.Tensor, result: torch.Tensor) -> None:
    # The derivative is the sigmoid of x, 1 − e^{−output}.
    torch.addcmul(gradient, gradient, torch.neg(output).exp_(), value=-1, out=result)


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "softplus": nn.Softplus, "silu": nn.SiLU, "elu": Elu}
"""``relu`` is the paper's. The other three have a continuous derivative, which a Lipschitz ∇E needs."""

KERNELS: dict[type[nn.Module], Kernel] = {
    nn.ReLU: Kernel(_write_relu, _pull_back_relu),
    nn.Softplus: Kernel(_write_softplus, _pull_back_softplus),
    Elu: Kernel(_write_elu, _pull_back_elu),
}
"""Kernels by layer. ``silu`` has none: it is not monotone, so that two inputs share an output."""
