"""Convergence diagnostics of several chains: split R̂, effective sample size, Monte-Carlo standard error."""

from dataclasses import dataclass

import torch

MINIMAL_KEEP = 10
"""States to keep of every chain. With four R̂ of independent draws is above 1.1 in a quarter of the pixels (eight
chains), and nothing is known of correlations; half chains of five have lags up to three."""


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of one real number a pixel, real (batch, height, width); ``None`` below :data:`MINIMAL_KEEP` states.

    ``keep`` states were kept of each chain. R̂ is one where chains and halves of chains agree; the Monte-Carlo error is
    the standard error of the mean.
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
    r"""Effective sample size of real chains (chain, keep, ...), keep ≥ 10; not above the number of states N.

    .. math:: N_{eff} = \frac{N}{\max(1, \tau)}, \quad \tau = -1 + 2 \sum_{k < K} P_k + \rho_{2K}

    with ρ_t the autocorrelation over all half chains at lag t and P_k = ρ_{2k} + ρ_{2k+1}, up to the first pair K that
    is negative, or the last that there is, and none larger than the one before (Geyer's initial monotone sequence:
    Vehtari et al., Rank-normalization, folding, and localization, 2021, section 3.2). Of half chains the last lags,
    of which there are one or two products each, are left out.
    """
    centred, within, pooled = _halves(chains)
    count, length = centred.shape[:2]
    safe = torch.where(pooled > 0, pooled, 1.0)

    def correlation(lag: int) -> torch.Tensor:
        covariance = (centred[:, : length - lag] * centred[:, lag:]).sum(dim=1).mean(dim=0) / length
        return 1 - (within - covariance) / safe

    pair = 1 + correlation(1)
    time, open_ = 2 * pair - 1, torch.ones_like(within, dtype=torch.bool)
    for lag in range(2, length - 2, 2):
        even, odd = correlation(lag), correlation(lag + 1)
        last = (even + odd < 0) | (lag + 2 >= length - 2)
        # What the sum ends with is one term: its pair is negative, or the next one is not known.
        end = torch.where(even + odd < 0, even.clamp_min(0.0), even)
        pair = torch.minimum(pair, even + odd)
        time = time + torch.where(open_, torch.where(last, end, 2 * pair), 0.0)
        open_ &= ~last
        if not bool(open_.any()):
            break
    return count * length / time.clamp_min(1.0)


def _halves(chains: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return half chains about their means, the mean variance within them, and the variance of all of them pooled."""
    length = chains.shape[1] // 2
    halves = torch.cat([chains[:, :length], chains[:, chains.shape[1] - length :]])
    means, within = halves.mean(dim=1, keepdim=True), halves.var(dim=1).mean(dim=0)
    return halves - means, within, (length - 1) / length * within + means[:, 0].var(dim=0)
