r"""Means over regions, sample by sample: their mean, spread and interval, differences and ratios.

.. math:: v_s = \sum_i w_i u_{s,i} \Big/ \sum_i w_i

of the part u of sample s in phase with the posterior mean (:mod:`direct_deepen.posterior.posterior`). As u is linear in
the image, the mean of v over samples is the mean of |Ex| over the region; as errors of neighbouring pixels go together,
the standard deviation of v is not that of a pixel over √n: it is read off the samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from direct_deepen.errors import require
from direct_deepen.posterior.intervals import predictive_interval


@dataclass(frozen=True)
class Region:
    """The mean of a region, or a difference or ratio of such, in every sample of a posterior."""

    values: torch.Tensor = field(repr=False)
    """Real (sample, batch), in the unit of the images; without one for a ratio."""
    num_chains: int
    """Of how many chains, or independent samples, the samples are."""

    @property
    def mean(self) -> torch.Tensor:
        """Mean over samples, real (batch,): of a region the mean of |Ex|, of a ratio the mean of ratios."""
        return self.values.mean(dim=0)

    @property
    def std(self) -> torch.Tensor:
        """Standard deviation over samples, real (batch,); zero for a single sample."""
        return self.values.std(dim=0, correction=int(len(self.values) > 1))

    def interval(self, level: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ends of the interval that holds the value of one more sample with probability ``level``.

        Two real (batch,), by :func:`~direct_deepen.posterior.intervals.predictive_interval`, which counts chains. A
        :class:`DeepenError` for a level that is not between zero and one, and for samples of a single chain.
        """
        return predictive_interval(self.mean, self.std, level, num_chains=self.num_chains)

    def __sub__(self, other: "Region") -> "Region":
        """Return the difference, sample by sample; a :class:`DeepenError` for a region of another posterior."""
        self._require_same(other)
        return Region(self.values - other.values, self.num_chains)

    def __truediv__(self, other: "Region") -> "Region":
        """Return the ratio, sample by sample.

        A :class:`DeepenError` for a region of another posterior, and for a divisor that is not above zero in every
        sample: its ratio has neither mean nor spread.
        """
        self._require_same(other)
        least = float(other.values.min())
        require(least > 0, f"the divisor is {least:.3g} in a sample; allowed: regions above 0 in all of them")
        return Region(self.values / other.values, self.num_chains)

    def _require_same(self, other: "Region") -> None:
        ours, theirs = (
            f"{len(region.values)} samples of {region.num_chains} chains for {region.values[0].numel()} images"
            for region in (self, other)
        )
        require(ours == theirs, f"a region has {theirs}; allowed with the other: {ours}")


def pooled(regions: Sequence[Region], sizes: Sequence[float]) -> Region:
    """Return the mean over regions of as many samples, at least one, each weighted by its size, above zero.

    So the parts of a volume, slice by slice, come to that of the volume: sample s is made of the samples s of all
    slices. Slices are sampled apart, so that what they err by together, as of coil maps, is not in the spread.
    """
    first = regions[0]
    for region in regions:
        first._require_same(region)
    weights = torch.tensor(sizes, dtype=first.values.dtype, device=first.values.device) / sum(sizes)
    return Region((torch.stack([region.values for region in regions], dim=-1) @ weights), first.num_chains)


def region_weights(mask: Any, like: torch.Tensor) -> torch.Tensor:
    """Return a mask as weights that sum to one, real (height, width), for complex images (..., height, width).

    ``mask`` is boolean, or weights of zero and above, (height, width): a tensor or an array. A :class:`DeepenError` if
    it has another shape, is complex, empty, negative or not finite.
    """
    # Arrays may be of types and strides that tensors do not have.
    weights = mask if isinstance(mask, torch.Tensor) else torch.from_numpy(np.array(mask, dtype=_type_of(mask)))
    allowed = tuple(like.shape[-2:])
    require(
        tuple(weights.shape) == allowed, f"mask has shape {tuple(weights.shape)}; allowed: {allowed}, of the images"
    )
    require(not weights.is_complex(), f"mask has type {weights.dtype}; allowed: boolean or real")
    weights = weights.to(like.device, torch.float64)
    least, largest = float(weights.min()), float(weights.max())
    require(0 <= least <= largest < float("inf"), f"mask holds {least:g} to {largest:g}; allowed: finite numbers >= 0")
    require(largest > 0, "mask is 0 everywhere; allowed: one pixel or more")
    return (weights / weights.sum()).to(like.real.dtype)


def _type_of(mask: Any) -> type:
    return complex if np.iscomplexobj(mask) else float
