"""The inner loops, and what they are held against: the floor of ∇E, and Langevin steps and updates as others take them.

The floor is the convolutions of the network and, for every one of them, that by which its input's gradient comes back,
at the shapes of the network, on memory that is there, channels last, and nothing else: no activation, no loss.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.setting import Workload
from direct_deepen.inference import Chains, LangevinStep, Samples, Stopping, langevin, mm_map
from direct_deepen.objectives import contrastive_loss
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.priors import ReducedPrecision

STEP_SIZE = 0.1
NOISE_STD = 0.01
CHAIN_STEPS = 50
"""Steps of the chains whose time is taken; the evaluation at the start counts too."""


def floor(work: Workload) -> Callable[[], None]:
    """Return a function that does the convolutions of ∇E."""
    convolutions = [layer for layer in work.energy.residual if isinstance(layer, nn.Conv2d)]
    weights = [layer.weight.detach() for layer in convolutions]
    biases = [layer.bias for layer in convolutions]
    # The gradient by the input is the convolution by the turned kernel, channels swapped.
    turned = [weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last) for weight in weights]
    shape = work.image.shape
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    layers = [
        torch.zeros(shape[0], width, *shape[1:], device=work.image.device).contiguous(memory_format=torch.channels_last)
        for width in widths
    ]

    @torch.no_grad()
    def convolve() -> None:
        for layer, weight, bias in zip(layers, weights, biases, strict=False):
            functional.conv2d(layer, weight, bias, padding=1)
        for layer, weight in zip(reversed(layers), reversed(turned), strict=False):
            functional.conv2d(layer, weight, padding=1)

    return convolve


def gradient(work: Workload) -> Callable[[], object]:
    """Return a function that evaluates E and ∇E."""
    return lambda: work.energy.value_and_grad(work.image)


def reduced_gradient(work: Workload) -> Callable[[], object]:
    """Return a function that evaluates E and ∇E with convolutions of 16 bits.

    Raises
    ------
    DeepenError
        If the activation has no kernel for them.
    """
    energy = ReducedPrecision(work.energy)
    return lambda: energy.value_and_grad(work.image)


def chain(work: Workload, num_steps: int = CHAIN_STEPS, num_samples: int = 1) -> Callable[[], Samples]:
    """Return a function that runs ``num_samples`` Langevin chains of ``num_steps`` steps for every image."""
    generator = torch.Generator(work.image.device).manual_seed(0)
    return lambda: langevin(
        work.A,
        work.masked_kspace,
        work.energy,
        noise_std=NOISE_STD,
        init=work.image,
        chains=Chains(num_samples, num_steps),
        step=LangevinStep(STEP_SIZE),
        generator=generator,
    )


def solver(work: Workload, num_steps: int) -> Callable[[], object]:
    """Return a function that takes steps towards the most probable image."""
    return lambda: mm_map(work.A, work.masked_kspace, work.energy, stopping=Stopping(max_iterations=num_steps))


def plain_energy(work: Workload) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the same energy of layers and layout of PyTorch's own, as a function of channels."""
    network = nn.Sequential(*map(_plain_layer, work.energy.residual)).to(memory_format=torch.contiguous_format)
    return lambda channels: 0.5 * work.energy.weight * network(channels).square().sum(dim=(1, 2, 3))


def _plain_layer(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Conv2d):
        return type(layer)()
    size = {"kernel_size": 3, "padding": 1, "device": layer.weight.device}
    plain = nn.utils.skip_init(nn.Conv2d, layer.in_channels, layer.out_channels, **size)
    plain.load_state_dict(layer.state_dict())
    return plain


def naive_step(work: Workload) -> Callable[[], None]:
    """Return a function that takes one Langevin step as a first version would.

    The plain energy, differentiated with a graph for second derivatives, and data consistency by the forward model and
    its adjoint.
    """
    energy = plain_energy(work)
    generator = torch.Generator(work.image.device).manual_seed(0)

    def step() -> None:
        x = work.image.clone().requires_grad_()
        value = energy(torch.stack([x.real, x.imag], dim=1)).sum()
        (prior_gradient,) = torch.autograd.grad(value, x, create_graph=True)
        gradient = work.A.adjoint(work.A.forward(x) - work.masked_kspace) + prior_gradient
        noise = complex_normal_like(work.image, generator=generator)
        x = (x - STEP_SIZE * gradient + NOISE_STD * STEP_SIZE**0.5 * noise).detach()

    return step


def own_energy(work: Workload) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return our own energy as a function of channels."""
    return lambda channels: work.energy(torch.view_as_complex(channels.movedim(1, -1).contiguous()))


def deepinv_chain(
    work: Workload, energy: Callable[[torch.Tensor], torch.Tensor], num_steps: int
) -> Callable[[], object]:
    """Return a function that runs deepinv's unadjusted Langevin algorithm with the same forward model.

    ``energy`` is a function of channels: that of :func:`plain_energy`, which users of deepinv would have, or
    :func:`own_energy`.
    """
    deepinv: Any = importlib.import_module("deepinv")
    maps = work.A.sensitivity_map
    physics = deepinv.physics.MultiCoilMRI(mask=work.A.sampling_mask.to(maps.real.dtype), coil_maps=maps)
    kspace, start = _channels(work.masked_kspace), _channels(work.image)

    def run() -> None:
        sampler = deepinv.sampling.sampling_builder(
            "ULA",
            data_fidelity=deepinv.optim.L2(sigma=NOISE_STD / 2**0.5),
            prior=deepinv.optim.Prior(g=lambda channels, _: energy(channels)),
            params_algo={"step_size": 0.5 * NOISE_STD**2 * STEP_SIZE, "alpha": 2 / NOISE_STD**2, "sigma": 1.0},
            clip=None,
            max_iter=num_steps,
            burnin_ratio=0.0,
            thinning=1,
            history_size=1,
        )
        with torch.random.fork_rng(devices=[]):
            sampler.sample(kspace, physics, x_init=start, seed=0)

    return run


def severed_update(work: Workload, num_steps: int) -> Callable[[], None]:
    """Return an update by maximum likelihood, with no gradient through the chain (DEEPEN, equation 10)."""
    run = chain(work, num_steps)
    return _update(work, lambda: run().images[0])


def unrolled_update(work: Workload, num_steps: int) -> Callable[[], None]:
    """Return the same update with a graph through the chain, for what severing it saves."""
    generator = torch.Generator(work.image.device).manual_seed(0)
    data = work.A.adjoint(work.masked_kspace)

    def samples() -> torch.Tensor:
        x = work.image.clone().requires_grad_()
        for _ in range(num_steps):
            (prior_gradient,) = torch.autograd.grad(work.energy(x).sum(), x, create_graph=True)
            noise = complex_normal_like(x, generator=generator)
            x = x - STEP_SIZE * (work.A.normal(x) - data + prior_gradient) + NOISE_STD * STEP_SIZE**0.5 * noise
        return x

    return _update(work, samples)


def _update(work: Workload, samples: Callable[[], torch.Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(work.energy.parameters())

    def update() -> None:
        contrastive_loss(work.energy(work.image), work.energy(samples())).backward()
        optimizer.step()
        optimizer.zero_grad()

    return update


def _channels(image: torch.Tensor) -> torch.Tensor:
    """Complex (batch, ..., height, width) to real and imaginary part as channels."""
    return torch.view_as_real(image).movedim(-1, 1).contiguous()
