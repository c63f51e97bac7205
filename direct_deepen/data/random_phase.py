"""Smooth random phases in training, so that an energy does not depend on the phase of the coil maps."""

import hashlib
from dataclasses import replace

import torch

from direct_deepen.physics.problem import Problem

_GRADIENT_STD, _CURVATURE_STD = 1.0, 0.7
"""Radians between the centre and the edge of the field of view."""


def with_random_phase(problem: Problem, share: float) -> Problem:
    r"""Move a smooth phase from the coil maps into the image, for a ``share`` of the slices.

    S·e^{−iφ} and x·e^{iφ} explain the same data as S and x. φ is a polynomial of second order in the coordinates, with
    a uniformly distributed constant. It is determined by file name and slice, so that a persistent chain finds its
    image with the phase it was left with.
    """
    maps = problem.A.sensitivity_map
    height, width = maps.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    terms = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y])
    phases = torch.stack([_draw_phase(name, number, terms, share) for name, number in problem.names])
    rotation = torch.polar(torch.ones_like(phases), -phases).to(maps)
    return replace(problem, A=problem.A.multiplied(rotation))


def _draw_phase(name: str, number: int, terms: torch.Tensor, share: float) -> torch.Tensor:
    text = f"phase/{name.rsplit('/', 1)[-1]}/{number}"
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))
    if float(torch.rand((), generator=generator)) >= share:
        return torch.zeros(terms.shape[1:])
    constant = torch.pi * (2 * torch.rand(1, generator=generator) - 1)
    normal = torch.randn(5, generator=generator)
    coefficients = torch.cat([constant, _GRADIENT_STD * normal[:2], _CURVATURE_STD * normal[2:]])
    return (coefficients[:, None, None] * terms).sum(dim=0)
