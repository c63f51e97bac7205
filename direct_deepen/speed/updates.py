"""Updates of the weights: as this package does them, and with a graph through the whole chain."""

from collections.abc import Callable

import torch

from direct_deepen.inference import langevin
from direct_deepen.objectives import contrastive_loss
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.speed.setting import Workload
from direct_deepen.speed.steps import NOISE_STD, STEP_SIZE

Update = Callable[[], None]


def severed_update(work: Workload, num_steps: int) -> Update:
    """Return an update by maximum likelihood, with no gradient through the chain (DEEPEN, equation 10)."""
    generator = torch.Generator(work.image.device).manual_seed(0)

    def samples() -> torch.Tensor:
        run = langevin(
            work.A, work.masked_kspace, work.energy, noise_std=NOISE_STD, step_size=STEP_SIZE, num_steps=num_steps,
            init=work.image, generator=generator,
        )  # fmt: skip
        return run.images[0]

    return _update(work, samples)


def unrolled_update(work: Workload, num_steps: int) -> Update:
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


def _update(work: Workload, samples: Callable[[], torch.Tensor]) -> Update:
    optimizer = torch.optim.Adam(work.energy.parameters())

    def update() -> None:
        contrastive_loss(work.energy(work.image), work.energy(samples())).backward()
        optimizer.step()
        optimizer.zero_grad()

    return update
