"""A posterior given by samples: moments, intervals and diagnostics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch

from direct_deepen.errors import require, require_positive
from direct_deepen.inference.samples import Samples
from direct_deepen.posterior.diagnostics import Diagnostics, diagnose


@dataclass(frozen=True)
class Posterior:
    """Moments, intervals and diagnostics of a posterior given by samples, complex (sample, batch, height, width)."""

    images: torch.Tensor = field(repr=False)
    diagnostics: Diagnostics

    @classmethod
    def from_samples(cls, samples: Samples) -> Self:
        """Return the posterior of the samples of any sampler."""
        return cls(images=samples.images, diagnostics=diagnose(samples.by_chain().abs()))

    @classmethod
    def from_images(cls, images: torch.Tensor) -> Self:
        """Return the posterior of independent samples, complex (sample, batch, height, width)."""
        return cls(images=images, diagnostics=diagnose(images.abs()[:, None]))

    @property
    def mean(self) -> torch.Tensor:
        """Posterior mean, the MMSE estimate: complex (batch, height, width)."""
        return self.images.mean(dim=0)

    @property
    def std(self) -> torch.Tensor:
        """Standard deviation of the magnitude |x|: real (batch, height, width); zero for a single sample."""
        return self.images.abs().std(dim=0, correction=int(len(self.images) > 1))

    @property
    def std_complex(self) -> torch.Tensor:
        """(E|x − Ex|²/2)^½, the standard deviation per real component: real (batch, height, width)."""
        deviation = (self.images - self.mean).abs().square().sum(dim=0)
        return (deviation / (2 * max(1, len(self.images) - 1))).sqrt()

    def rescaled(self, std_scale: float) -> "Posterior":
        """Return the posterior whose samples are x̄ + s(x − x̄), with x̄ the mean and s = ``std_scale`` > 0.

        The mean is unchanged, ``std_complex`` is s times as large, and everything computed from magnitudes follows from
        the samples. The diagnostics are unchanged.
        """
        require_positive("std_scale", std_scale)
        mean = self.mean
        return Posterior(images=mean + std_scale * (self.images - mean), diagnostics=self.diagnostics)

    def interval(self, level: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ends of the central interval of |x| that holds the share ``level`` of the samples.

        Two real (batch, height, width).
        """
        require(0 < level < 1, f"level is {level!r}; allowed: between 0 and 1")
        lower, upper = self.quantiles([(1 - level) / 2, (1 + level) / 2])
        return lower, upper

    def quantiles(self, probabilities: Sequence[float]) -> torch.Tensor:
        """Return quantiles of |x|, interpolated linearly between samples: real (quantile, batch, height, width)."""
        allowed = all(0 <= probability <= 1 for probability in probabilities)
        require(allowed, f"probabilities are {list(probabilities)!r}; allowed: 0 to 1")
        magnitude = self.images.abs()
        wanted = torch.tensor(probabilities, dtype=magnitude.dtype, device=magnitude.device)
        # Row by row, as older versions of torch take at most 16 million values.
        return torch.stack([torch.quantile(row, wanted, dim=0) for row in magnitude.unbind(dim=-2)], dim=-2)
