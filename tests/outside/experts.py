"""An energy of your own: learned filters that seldom respond (a field of experts; Roth and Black, 2009)."""

import torch
from torch import nn
from torch.nn import functional

from direct_deepen import Energy


class FieldOfExperts(Energy):
    r"""E(x) = w Σ_k Σ_pixels log(1 + (f_k * x)²/s²), f_k the filters; real and imaginary part are two channels."""

    def __init__(self, num_filters: int = 8, scale: float = 0.1, weight: float = 1e-3) -> None:
        super().__init__()
        self.filters = nn.Conv2d(2, num_filters, kernel_size=5, padding=2, bias=False)
        self.scale, self.weight = scale, weight

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return E(x) of every image; complex (batch, height, width) → real (batch,)."""
        channels = torch.view_as_real(image).permute(0, 3, 1, 2)
        responses = functional.conv2d(channels, self.filters.weight, padding=2)
        return self.weight * torch.log1p((responses / self.scale).square()).sum(dim=(1, 2, 3))
