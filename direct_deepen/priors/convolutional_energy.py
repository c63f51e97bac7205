"""Energies that are a number made of what a stack of convolutions puts out."""

from abc import abstractmethod
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from direct_deepen.priors.cpu.convolutional_pass import ConvolutionalPass, has_kernels, images_at_once
from direct_deepen.priors.energy import Energy
from direct_deepen.priors.networks import channels_to_image, image_to_channels


class ConvolutionalEnergy(Energy):
    """E(x) = h(φ(x)), φ a stack of convolutions and h a head that makes a number of its output.

    ∇E, and the gradient of E by the weights where none by the image is asked for, are computed without a graph, as many
    images at a time as suit the device (see :mod:`direct_deepen.priors.cpu.convolutional_pass`). So the
    memory of a batch is that of a few images. Activations without a kernel, and second derivatives, are left to
    automatic differentiation. The numbers are the same but for rounding.
    """

    @property
    @abstractmethod
    def stack(self) -> nn.Sequential:
        """The convolutions φ, real (batch, 2, height, width) → (batch, channel, height, width)."""

    @abstractmethod
    def energy_of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return h ≥ 0, real (batch,), of what the stack puts out, differentiable."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return E(x); complex (batch, height, width) → real (batch,)."""
        channels = image_to_channels(image, self)
        if channels.requires_grad or not has_kernels(self.stack):
            return self.energy_of_features(self.stack(channels))
        value: torch.Tensor = _ByWeights.apply(self, channels, *self._weights())
        return value

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x), detached; see :meth:`Energy.value_and_grad`."""
        if not has_kernels(self.stack):
            return super().value_and_grad(image)
        return self.value_and_grad_by_pass(image, image.real.dtype)

    def value_and_grad_by_pass(self, image: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x), detached and of the precision of the image, by convolutions in ``dtype``."""
        values, gradients = [], []
        with torch.inference_mode(mode=False), torch.no_grad():
            channels = image_to_channels(image, self)
            for part in channels.split(images_at_once(channels)):
                passed = ConvolutionalPass(self.stack, part.to(dtype))
                with torch.enable_grad():
                    output = passed.output.detach().to(channels.dtype).requires_grad_()
                    value = self.energy_of_features(output)
                    (gradient,) = torch.autograd.grad(value.sum(), output)
                values.append(value.detach())
                gradients.append(channels_to_image(passed.pull_back(gradient).to(channels.dtype)))
        return torch.cat(values), torch.cat(gradients)

    def _weights(self) -> list[nn.Parameter]:
        """All weights, those of the stack first."""
        of_stack = list(self.stack.parameters())
        known = {id(weight) for weight in of_stack}
        return of_stack + [weight for weight in self.parameters() if id(weight) not in known]


class _ByWeights(torch.autograd.Function):
    """E with a gradient by the weights alone: nothing is kept for it but the images, which pass a second time."""

    @staticmethod
    def forward(ctx: Any, energy: ConvolutionalEnergy, channels: torch.Tensor, *weights: nn.Parameter) -> torch.Tensor:
        ctx.energy = energy
        ctx.save_for_backward(channels, *weights)
        parts = channels.split(images_at_once(channels))
        return torch.cat([energy.energy_of_features(ConvolutionalPass(energy.stack, part).output) for part in parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_value: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        channels, *weights = ctx.saved_tensors
        stack = ctx.energy.stack
        of_stack = len(list(stack.parameters()))
        of_head = [weight for weight in weights[of_stack:] if weight.requires_grad]
        size = images_at_once(channels)
        totals = [torch.zeros_like(weight) for weight in (*weights[:of_stack], *of_head)]
        for part, factor in zip(channels.split(size), by_value.split(size), strict=True):
            passed = ConvolutionalPass(stack, part)
            with torch.enable_grad():
                output = passed.output.detach().requires_grad_()
                value = ctx.energy.energy_of_features(output)
                gradient, *terms = torch.autograd.grad(value, [output, *of_head], factor)
            for total, term in zip(totals, [*passed.pull_back_to_weights(gradient), *terms], strict=True):
                total += term
        by_head = iter(totals[of_stack:])
        return None, None, *totals[:of_stack], *(next(by_head) if w.requires_grad else None for w in weights[of_stack:])
