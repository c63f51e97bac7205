"""SK-ROCK of deepinv, as the page on exact posteriors calls it, has the variance that it has in theory."""

import numpy as np
import pytest
import torch

from projects.certified import peer
from projects.certified.problem import NOISE_STD, draw_problem
from projects.certified.templates import Templates

pytestmark = pytest.mark.peer

SPREAD = 0.15
LIMIT = 4.0
"""Standard errors."""


@pytest.mark.parametrize("step", [1.0, 0.8 * peer.longest_step()])
def test_the_variance_of_a_gaussian_is_that_of_the_recursion(step):
    prior = Templates(torch.zeros(1, 1, 16, dtype=torch.complex128), SPREAD)
    problem = draw_problem(prior, 4, torch.Generator().manual_seed(0))
    drawn = peer.sk_rock(problem, 400, torch.Generator().manual_seed(1), steps=60, step=step).images
    kspace = torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(drawn, dim=-1), norm="ortho"), dim=-1)
    variance = 0.5 * (kspace - kspace.mean(dim=0)).abs().square().sum(dim=0) / (len(kspace) - 1)
    precisions = {True: NOISE_STD**-2 + SPREAD**-2, False: SPREAD**-2}
    for measured, precision in precisions.items():
        found = variance[problem.mask[:, 0] == measured]
        expected = stationary_variance(step * precision / precisions[True]) / precision
        assert abs(found.mean() / expected - 1) < LIMIT / (found.numel() * len(drawn)) ** 0.5


def stationary_variance(z):
    """Of steps in a potential of curvature one, each from Ax + B√(2z)ξ; A and B by the recursion of the method."""
    stages, w0 = peer.STAGES, 1 + peer.DAMPING / peer.STAGES**2

    def chebyshev(degree):
        return np.cosh(degree * np.arccosh(w0))

    w1 = chebyshev(stages) / (stages * np.sinh(stages * np.arccosh(w0)) / np.sqrt(w0**2 - 1))

    def stepped(x, noise):
        before, here = x, x - w1 / w0 * z * (x + stages * w1 / 2 * noise) + stages * w1 / w0 * noise
        for stage in range(2, stages + 1):
            mu = 2 * w1 * chebyshev(stage - 1) / chebyshev(stage)
            nu = 2 * w0 * chebyshev(stage - 1) / chebyshev(stage)
            before, here = here, -mu * z * here + nu * here + (1 - nu) * before
        return here

    return 2 * z * stepped(0.0, 1.0) ** 2 / (1 - stepped(1.0, 0.0) ** 2)
