"""A box at one of several places: a mixture of Gaussians, whose posterior is one too, with as many modes."""

from dataclasses import dataclass

import torch

from projects.certified.problem import NOISE_STD, Exact, Problem, fourier_matrix, standard_normal


@dataclass(frozen=True)
class Templates:
    """The prior: equally often one of K images m_k, plus white noise of standard deviation ``spread``."""

    means: torch.Tensor
    """Complex128 (K, 1, pixels)."""
    spread: float

    @property
    def largest_curvature(self) -> float:
        """Return that within a component: between them the density is less curved."""
        return self.spread**-2

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return images."""
        which = torch.randint(len(self.means), (count,), generator=generator)
        noise = standard_normal((count, *self.means.shape[1:]), generator)
        return self.means[which] + self.spread * noise

    def log_density(self, image: torch.Tensor, level: float = 0.0) -> torch.Tensor:
        """Return log p_σ up to a constant of σ."""
        return self._logits(image, level).logsumexp(dim=1)

    def score(self, image: torch.Tensor, level: float = 0.0) -> torch.Tensor:
        """Return ∇ log p_σ: towards the mean of the m_k, weighted by how probable they are."""
        weights = self._logits(image, level).softmax(dim=1).to(image.dtype)
        return (torch.einsum("bk,khw->bhw", weights, self.means) - image) / (self.spread**2 + level**2)

    def _logits(self, image: torch.Tensor, level: float) -> torch.Tensor:
        # −‖x − m_k‖²/2v, by a product of matrices.
        flat, means = image.flatten(1), self.means.flatten(1)
        cross = (flat @ means.mH).real - 0.5 * means.abs().square().sum(dim=1)
        return (cross - 0.5 * flat.abs().square().sum(dim=1, keepdim=True)) / (self.spread**2 + level**2)


def boxes(pixels: int = 32, *, places: int = 8, height: float = 0.3, spread: float = 0.15) -> Templates:
    """Return boxes a quarter of the signal wide, at equally spaced places of a ring."""
    box = torch.zeros(1, pixels, dtype=torch.complex128)
    box[:, : pixels // 4] = height
    return Templates(torch.stack([box.roll(place * pixels // places, dims=-1) for place in range(places)]), spread)


def exact_posterior(prior: Templates, problem: Problem, samples: int, generator: torch.Generator) -> Exact:
    """Return the posterior, a mixture of Gaussians that are independent in every frequency."""
    pixels = problem.truth.shape[-1]
    F = fourier_matrix(pixels)
    measured, data = problem.mask[:, 0, 0].double(), problem.data[:, 0, 0]
    template = prior.means[:, 0] @ F.T
    misfit = (measured[:, None] * (data[:, None] - template)).abs().square().sum(dim=2)
    weights = (-misfit / (2 * (prior.spread**2 + NOISE_STD**2))).softmax(dim=1)
    variance = 1 / (measured / NOISE_STD**2 + 1 / prior.spread**2)
    means = variance[:, None] * ((measured * data)[:, None] / NOISE_STD**2 + template / prior.spread**2)
    mean = (weights[:, :, None] * means).sum(dim=1)
    apart = means - mean[:, None]
    between = 0.5 * torch.einsum("bk,bki,bkj->bij", weights.to(apart.dtype), apart, apart.conj())
    covariance = F.mH @ (torch.diag_embed(variance).to(F.dtype) + between) @ F
    which = weights.multinomial(samples, replacement=True, generator=generator).T
    drawn = means[torch.arange(len(data)), which]
    drawn = drawn + variance.sqrt() * standard_normal(tuple(drawn.shape), generator)
    return Exact((mean @ F.conj())[:, None], covariance, (drawn @ F.conj())[:, :, None])
