r"""A posterior given by samples: moments, intervals and diagnostics.

What is looked at is a magnitude, but that of noise is never near zero: |Ex| stands beside no interval of |x| where
there is little signal. So all real figures are of one number a pixel, the part of the image in phase with the mean,

.. math:: u = \mathrm{Re}(x \, \overline{\mathrm{E}x}) / |\mathrm{E}x|, \quad \mathrm{E}u = |\mathrm{E}x|,

which is |x| where the signal is above the noise. It is linear in x: the mean of u over a region has the mean of the
magnitude image over it, and a sample farther from the mean by a factor is so in u.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from direct_deepen.errors import require, require_positive
from direct_deepen.inference.samples import Samples
from direct_deepen.physics.rings import scale_rings
from direct_deepen.posterior.diagnostics import Diagnostics, diagnose
from direct_deepen.posterior.intervals import predictive_interval
from direct_deepen.posterior.region import Region, region_weights


@dataclass(frozen=True)
class Posterior:
    """Moments, intervals and diagnostics of a posterior given by samples, complex (sample, batch, height, width)."""

    images: torch.Tensor = field(repr=False)
    diagnostics: Diagnostics

    @classmethod
    def from_samples(cls, samples: Samples) -> Self:
        """Return the posterior of the samples of any sampler."""
        return cls.from_chains(samples.by_chain())

    @classmethod
    def from_images(cls, images: torch.Tensor) -> Self:
        """Return the posterior of independent samples, complex (sample, batch, height, width)."""
        return cls.from_chains(images[:, None])

    @classmethod
    def from_chains(cls, chains: torch.Tensor) -> Self:
        """Return the posterior of states of chains, complex (chain, keep, batch, height, width)."""
        images = chains.flatten(0, 1)
        real = in_phase(images, images.mean(dim=0))
        return cls(images=images, diagnostics=diagnose(real.unflatten(0, chains.shape[:2])))

    @property
    def mean(self) -> torch.Tensor:
        """Posterior mean, the MMSE estimate: complex (batch, height, width)."""
        return self.images.mean(dim=0)

    @property
    def std(self) -> torch.Tensor:
        """Standard deviation of u: real (batch, height, width); zero for a single sample."""
        return self.in_phase(self.images).std(dim=0, correction=int(len(self.images) > 1))

    def in_phase(self, images: torch.Tensor) -> torch.Tensor:
        """Return u of images, complex (..., batch, height, width) → real: of the samples, or of a reference."""
        return in_phase(images, self.mean)

    @property
    def std_complex(self) -> torch.Tensor:
        """(E|x − Ex|²/2)^½, the standard deviation per real component: real (batch, height, width)."""
        deviation = (self.images - self.mean).abs().square().sum(dim=0)
        return (deviation / (2 * max(1, len(self.images) - 1))).sqrt()

    def rescaled(self, std_scale: float, ring_scales: Sequence[float] = ()) -> "Posterior":
        """Return the posterior whose samples are x̄ + s·R(x − x̄), with x̄ the mean and s = ``std_scale`` > 0.

        R multiplies k-space ring by ring (:func:`~direct_deepen.physics.rings.scale_rings`); without ``ring_scales``
        it is one. The mean is unchanged; without R deviations and the distances of quantiles from it are s times as
        large. The diagnostics are unchanged.
        """
        require_positive("std_scale", std_scale)
        mean = self.mean
        deviations = std_scale * (self.images - mean)
        if ring_scales:
            deviations = scale_rings(deviations, ring_scales)
        return Posterior(images=mean + deviations, diagnostics=self.diagnostics)

    def interval(self, level: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ends of the interval that holds u of one more sample with probability ``level``.

        Two real (batch, height, width), equally far from the magnitude of the mean, by
        :func:`~direct_deepen.posterior.intervals.predictive_interval`. A
        :class:`DeepenError` for a level that is not between zero and one, and for samples of a single chain.
        """
        return predictive_interval(self.mean.abs(), self.std, level, num_chains=self.diagnostics.num_chains)

    def region(self, mask: Any) -> Region:
        """Return the mean of u over a region, sample by sample.

        ``mask`` is boolean, or weights of zero and above, (height, width), one for all images of the batch: a tensor or
        an array. A :class:`DeepenError` for another shape, and for weights that are negative, not finite, or zero
        everywhere.
        """
        weights = region_weights(mask, self.images)
        inside = weights > 0
        pixels = self.images[..., inside]
        return Region(in_phase(pixels, pixels.mean(dim=0)) @ weights[inside], self.diagnostics.num_chains)

    def quantiles(self, probabilities: Sequence[float]) -> torch.Tensor:
        """Return quantiles of u, interpolated linearly between samples: real (quantile, batch, height, width)."""
        allowed = all(0 <= probability <= 1 for probability in probabilities)
        require(allowed, f"probabilities are {list(probabilities)!r}; allowed: 0 to 1")
        real = self.in_phase(self.images)
        wanted = torch.tensor(probabilities, dtype=real.dtype, device=real.device)
        # Row by row, as older versions of torch take at most 16 million values.
        return torch.stack([torch.quantile(row, wanted, dim=0) for row in real.unbind(dim=-2)], dim=-2)


def in_phase(images: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return Re(x·conj(m))/|m| of complex images (..., *pixels) with m (*pixels); the real part where m is zero."""
    size = mean.abs()
    direction = torch.where(size > 0, mean / torch.where(size > 0, size, 1.0), 1.0)
    return images.real * direction.real + images.imag * direction.imag
