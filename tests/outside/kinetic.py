"""A sampler of your own: Langevin dynamics with momentum (OBABO; Bussi and Parrinello, 2007)."""

from dataclasses import dataclass
from math import exp

import torch

from direct_deepen.inference import Sampler, Samples
from direct_deepen.parts import setting
from direct_deepen.physics.noise import complex_normal_like


@dataclass
class KineticLangevin(Sampler):
    """Chains of image and velocity; for small steps images have the posterior ∝ exp(−2C/ε²)."""

    num_steps: int = setting(100, least=1)
    step_size: float = setting(0.5, above=0)

    def sample(self, problem, prior, generator, start=None):
        """Return the last image of every chain, each from SENSE."""
        A, b, h = problem.A, problem.masked_kspace, self.step_size
        decay = exp(-h / 2)  # of the velocity in half a step, for a friction of one
        fresh = (1 - decay**2) ** 0.5 * self.shared.noise_std / 2**0.5

        def mixed(v):
            return decay * v + fresh * complex_normal_like(v, generator=generator)

        def kicked(v, x):
            return v - h / 2 * (A.normal(x) - A.adjoint(b) + prior.value_and_grad(x)[1])

        images, first = [], self.sense(problem)
        for _ in range(self.num_samples):
            x, v = first, 0 * first
            for _ in range(self.num_steps):
                v = kicked(mixed(v), x)
                x = x + h * v
                v = mixed(kicked(v, x))
            images.append(x)
        return Samples.independent(torch.stack(images), 2 * self.num_samples * self.num_steps)
