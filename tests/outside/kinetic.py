"""A sampler of your own: Langevin dynamics with momentum (OBABO; Bussi and Parrinello, 2007)."""

import math
from dataclasses import dataclass

import torch

from direct_deepen import Samples
from direct_deepen.inference import Sampler
from direct_deepen.parts import setting
from direct_deepen.physics.noise import complex_normal_like


@dataclass
class KineticLangevin(Sampler):
    """Chains of image and velocity, whose images have the posterior ∝ exp(−2C/ε²) as their limit for small steps."""

    num_steps: int = setting(100, least=1)
    step_size: float = setting(0.5, above=0)
    friction: float = setting(1.0, above=0)

    def sample(self, problem, prior, generator, start=None):
        """Return the last image of every chain, each from SENSE."""
        A, b, h = problem.A, problem.masked_kspace, self.step_size
        decay, temperature = math.exp(-self.friction * h / 2), self.shared.noise_std / 2**0.5
        fresh = (1 - decay**2) ** 0.5 * temperature

        def gradient(x):
            return A.normal(x) - A.adjoint(b) + prior.value_and_grad(x)[1]

        images = []
        for _ in range(self.num_samples):
            x = self.sense(problem)
            v = temperature * complex_normal_like(x, generator=generator)
            for _ in range(self.num_steps):
                v = decay * v + fresh * complex_normal_like(x, generator=generator) - h / 2 * gradient(x)
                x = x + h * v
                v = decay * (v - h / 2 * gradient(x)) + fresh * complex_normal_like(x, generator=generator)
            images.append(x)
        return Samples.independent(torch.stack(images), self.num_samples * (2 * self.num_steps))
