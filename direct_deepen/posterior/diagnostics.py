"""Convergence diagnostics of several chains: split R̂, effective sample size, Monte-Carlo standard error."""

from dataclasses import dataclass

import torch

MINIMAL_KEEP = 4
"""States to keep of every chain: split R̂ halves each, and a variance needs two."""


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of |x|, real (batch, height, width); ``None`` below :data:`MINIMAL_KEEP` states of a chain.

    ``keep`` states were kept of each chain. R̂ is one where chains and halves of chains agree; the Monte-Carlo error is
    the standard error of the mean of |x|.
    """

    num_chains: int
    keep: int
    split_r_hat: torch.Tensor | None
    effective_sample_size: torch.Tensor | None
    monte_carlo_error: torch.Tensor | None


def diagnose(chains: torch.Tensor) -> Diagnostics:
    """Diagnose real chains (chain, keep, ...)."""
    num_chains, keep = chains.shape[:2]
    if keep < MINIMAL_KEEP:
        return Diagnostics(num_chains, keep, None, None, None)
    size = effective_sample_size(chains)
    error = chains.flatten(0, 1).std(dim=0) / size.sqrt()
    return Diagnostics(num_chains, keep, split_r_hat(chains), size, error)


def split_r_hat(chains: torch.Tensor) -> torch.Tensor:
    r"""Split R̂ of real chains (chain, keep, ...), keep ≥ 4.

    .. math:: \hat R = \left( \frac{(n - 1)/n \, W + B/n}{W} \right)^{1/2}

    with W the mean variance within, and B/n the variance between, the means of the half chains of length n
    (Gelman et al., Bayesian data analysis, section 11.4).
    """
    _, within, pooled = _halves(chains)
    # Constant chains agree (0/0 → 1) or are stuck at different values (x/0 → ∞).
    return torch.where(pooled > 0, pooled / within, 1.0).sqrt()


def effective_sample_size(chains: torch.Tensor) -> torch.Tensor:
    r"""Effective sample size of real chains (chain, keep, ...), keep ≥ 4.

    .. math:: \frac{mn}{1 + 2 \sum_t \rho_t}

    with ρ_t the autocorrelation over all half chains at lag t, summed over initial pairs ρ_{2t} + ρ_{2t+1} for as long
    as they are positive (Geyer, 1992; Vehtari et al., Rank-normalization, folding, and localization, 2021).
    """
    centred, within, pooled = _halves(chains)
    count, length = centred.shape[:2]
    safe = torch.where(pooled > 0, pooled, 1.0)

    def correlation(lag: int) -> torch.Tensor:
        covariance = (centred[:, : length - lag] * centred[:, lag:]).sum(dim=1).mean(dim=0) / length
        return 1 - (within - covariance) / safe

    time = -torch.ones_like(within)
    positive = torch.ones_like(within, dtype=torch.bool)
    for lag in range(0, length - 1, 2):
        pair = torch.ones_like(within) + correlation(1) if lag == 0 else correlation(lag) + correlation(lag + 1)
        positive &= pair > 0
        time = time + torch.where(positive, 2 * pair, 0.0)
        if not bool(positive.any()):
            break
    return count * length / time.clamp_min(1 / torch.log10(torch.tensor(float(count * length))))


def _halves(chains: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return half chains about their means, the mean variance within them, and the variance of all of them pooled."""
    length = chains.shape[1] // 2
    halves = torch.cat([chains[:, :length], chains[:, chains.shape[1] - length :]])
    means, within = halves.mean(dim=1, keepdim=True), halves.var(dim=1).mean(dim=0)
    return halves - means, within, (length - 1) / length * within + means[:, 0].var(dim=0)
