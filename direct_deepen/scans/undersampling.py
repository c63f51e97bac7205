"""A trial on full data: a part of the samples is left, and the image of all of them is the reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from direct_deepen.errors import require, require_choice, require_count

_MASKS = {"lines": ("FastMRIEquispaced", 0.32), "2d": ("Gaussian2D", 0.08), "radial": ("Radial", 0.08)}
"""DIRECT's masks by name, and the share of samples in their centre times the acceleration: 8 % of the lines at 4."""
MASKS = tuple(_MASKS)
"""Names of masks."""


@dataclass(frozen=True)
class Undersampling:
    """Which samples are left of full data."""

    acceleration: float
    """How many times fewer."""
    kind: str = "lines"
    """One of :data:`MASKS`."""
    seed: int = 0
    """Of the first slice; the next has the next."""

    def __post_init__(self) -> None:
        require_choice("mask", self.kind, MASKS)
        require(1 < self.acceleration < float("inf"), f"acceleration is {self.acceleration}; allowed: finite and > 1")
        require_count("seed", self.seed, least=0)


def draw_mask(undersampling: Undersampling, shape: Sequence[int], number: int) -> torch.Tensor:
    """Return DIRECT's mask for a slice of a number, boolean (row, column); lines are columns."""
    from direct.common.subsample import build_masking_function  # DIRECT costs seconds to import

    name, centre = _MASKS[undersampling.kind]
    acceleration = undersampling.acceleration
    draw = build_masking_function(name=name, accelerations=[acceleration], center_fractions=[centre / acceleration])
    mask = draw(shape=(1, *shape, 2), seed=undersampling.seed + number)
    return torch.as_tensor(mask).squeeze().expand(*shape) != 0
