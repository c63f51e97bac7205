r"""The noise of every ring of k-space, with what the operator does not explain, from residuals of posterior samples.

Coil maps that are a little wrong leave a misfit that is largest where the signal is, about the centre of k-space; white
noise in the likelihood takes it for an image. With η_r the level of ring r, of N_r samples of all coils, data are
believed as far as they can be explained:

.. math:: \eta_r^2 \leftarrow \frac{1}{2 N_r}\, \mathrm{E}\Big[\sum_{k \in r} |(Ax - b)_k|^2 \;\Big|\; b, \eta\Big].

This is EM for the likelihood of the levels, p(b | η) (Dempster, Laird and Rubin, JRSS B 39, 1977), its expectation over
samples of a few Langevin steps (Wei and Tanner, JASA 85, 1990; the step for step version is that of Vidal, De Bortoli,
Pereyra and Durmus, SIAM J. Imaging Sci. 13, 2020). Where A is right, all levels are that of the noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from direct_deepen.inference.langevin import Chains, LangevinStep, langevin
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.rings import num_rings, ring_numbers
from direct_deepen.priors.energy import DifferentiableEnergy

LARGEST_RATIO = 6.0
"""Largest level over the least. What an operator does not explain is no noise, and does not average out as noise does:
a centre without weight would leave the brightness of the image to the prior. Of validation slices MAP has with 6 all
but 0.5 dB of what it has with its best ratio, and with 2 up to 4.4 dB less (projects/calibration)."""

_ROUNDS = 2
"""The level of the centre, which has the farthest to go, is then within a tenth of that after five."""
_CHAINS = Chains(num_samples=2, num_steps=8, keep=4, burn_in=4, antithetic=True)
_STEP = LangevinStep(preconditioner=0.25, averaged_noise=True)
"""In the metric of the data, in which residuals arrive within a few steps."""


@dataclass(frozen=True)
class RingNoise:
    """The levels of an image, and what they took."""

    noise_std: torch.Tensor
    """η of every ring per real component, float64 (ring,), in scaled intensities."""
    gradient_evaluations: int
    """Of ∇E."""


def noise_by_ring(
    problem: Problem,
    energy_of: Callable[[float], DifferentiableEnergy],
    *,
    noise_std: float,
    init: torch.Tensor,
    largest_ratio: float = LARGEST_RATIO,
) -> RingNoise:
    """Return the noise of every ring of k-space; one that has no samples has the least of the others.

    Parameters
    ----------
    problem
        Of one image, without weights.
    energy_of
        The prior's energy for data of noise ε.
    noise_std
        ε to begin with, √2 times the noise of the data per real component.
    init
        Where chains start, complex (1, height, width): MAP with this ε.
    largest_ratio
        Of the levels, the largest over the least.
    """
    height, width = problem.masked_kspace.shape[-2:]
    rings, count = ring_numbers(height, width, device=init.device), num_rings(height, width)
    sampled = problem.A.sampling_mask[0, 0] != 0

    def sums(values: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(count, dtype=torch.float64, device=init.device)
        return zeros.index_add_(0, rings[sampled], values[sampled])

    samples = sums(sampled.double()) * problem.masked_kspace.shape[1]
    # The same for every slice, and none of the numbers of what comes after.
    generator = torch.Generator(init.device).manual_seed(0)
    levels, evaluations = torch.full_like(samples, noise_std / 2**0.5), 0
    for _ in range(_ROUNDS):
        weighted = problem.with_noise_by_ring(levels[None])
        epsilon = 2**0.5 * float(levels.min())
        drawn = langevin(
            weighted.A, weighted.masked_kspace, energy_of(epsilon),
            noise_std=epsilon, init=init, chains=_CHAINS, step=_STEP, generator=generator,
        )  # fmt: skip
        misfit = [sums(_squares(problem, image).double()) for image in drawn.images]
        found = (torch.stack(misfit).mean(dim=0) / (2 * samples.clamp_min(1))).sqrt()
        smallest = found[samples > 0].min()
        levels = torch.where(samples > 0, found, smallest).clamp_max(largest_ratio * float(smallest))
        init = drawn.images[_CHAINS.keep - 1 :: _CHAINS.keep]
        evaluations += drawn.gradient_evaluations
    return RingNoise(levels, evaluations)


def _squares(problem: Problem, image: torch.Tensor) -> torch.Tensor:
    """Return Σ_c |Ax − b|² of an image, complex (1, height, width) → real (height, width)."""
    return (problem.A.forward(image) - problem.masked_kspace).abs().square().sum(dim=1)[0]
