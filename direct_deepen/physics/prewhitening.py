r"""Noise that differs between coils: its covariance, and virtual coils in which it is white.

With the covariance Σ of the real components of the noise of coils (E zzᴴ = 2Σ, η² on the diagonal where it is white)
and its Cholesky factor, Σ = LLᴴ,

.. math:: k' = \bar\sigma L^{-1} k, \qquad S' = \bar\sigma L^{-1} S, \qquad \bar\sigma^2 = n / \mathrm{tr}\,\Sigma^{-1},

has noise of standard deviation σ̄ in each of n virtual coils, independent of the others (Pruessmann et al., Magn. Reson.
Med. 46, 638, 2001). So ½‖A'x − k'‖² is σ̄² times the ½(Ax − k)ᴴΣ⁻¹(Ax − k) of the likelihood, and σ̄ is the one noise
level η of the data. White noise changes nothing, nor does another unit of Σ.

σ̄² is the harmonic mean of the variances, as of the unit of an image: maps with Σ|S|² = 1 to which all virtual coils
contribute alike have Σ|S'|² = 1 again; a coil with infinite noise is one less, and changes no unit. Pixel by pixel
Σ|S'|² = σ̄² SᴴΣ⁻¹S is no longer one, and is not to be: it says how much the data tell of a pixel. So maps are normalised
before, never after; :func:`~direct_deepen.align_phase` takes their mean out, and leaves the rest. Maps that are
estimated from k' are S'/|S'| instead, and their image is x·|S'|, the root sum of squares of virtual coils: the same
likelihood of an image with another shading, the noise of which is σ̄ everywhere where all is sampled.
"""

import torch

from direct_deepen.errors import require
from direct_deepen.physics.fourier import ifft2

_HERMITIAN, _DEFINITE = 1e-4, 1e-6
"""Of the largest element, and of the largest eigenvalue: single precision; noise that differs a thousandfold."""

SAMPLES_PER_COIL = 10
"""The least number: with it noise levels of virtual coils are off by a third, with a hundred by a tenth."""

CORNERS, DARK = 0.7, 0.25
"""Share of the measured band, along both axes, beyond which samples have little signal; share of the darkest pixels."""

_WINDOW_STD = 0.15
"""Of the window that says which pixels are dark, over half the band: far from the corners, so that the noise of these
has no part in the choice."""

_CORRELATION = 0.9
"""Of two coils, above which it is signal: coils that share a preamplifier, or lie on one another, have less."""


def prewhitened(coils: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    r"""Return σ̄L⁻¹ of k-space or coil maps, (..., coil, height, width): virtual coils with equal, independent noise.

    Both are to be whitened, maps with Σ|S|² = 1 (:func:`normalize_sensitivity_map`) and not normalised after that;
    then comes :func:`align_phase`. The noise of the virtual coils is :func:`~direct_deepen.physics.noise_level`.

    Parameters
    ----------
    coils
        Complex; k-space is zero where it was not acquired, and is so after it.
    covariance
        Σ, (coil, coil), as of :func:`noise_covariance`: Hermitian, positive definite, in any unit.

    Raises
    ------
    DeepenError
        If the covariance is of another number of coils, or no covariance.
    """
    require(
        coils.is_complex() and coils.ndim >= 3,
        f"coils have shape {tuple(coils.shape)} and dtype {coils.dtype}; allowed: complex (..., coil, height, width)",
    )
    inverse, level = _whitening(covariance, coils.shape[-3])
    return torch.einsum("vc,...chw->...vhw", (level * inverse).to(coils), coils)


def noise_level(covariance: torch.Tensor) -> float:
    """Return σ̄, the standard deviation per real component of prewhitened noise, in the unit of the data."""
    return _whitening(covariance, covariance.shape[-1] if covariance.ndim else 0)[1]


def noise_covariance(noise: torch.Tensor) -> torch.Tensor:
    r"""Estimate Σ, complex (coil, coil), from noise: complex (coil, ...), of a scan without excitation.

    .. math:: \hat\Sigma = \frac{1}{2m} \sum_{i=1}^m z_i z_i^H,

    with a standard error of √(Σ_aa Σ_bb / m) for every element. Its bandwidth has to be that of the data in all coils
    alike, if nothing else; a common factor is no matter. A :class:`DeepenError` for fewer samples than ten a coil.
    """
    require(
        noise.is_complex() and noise.ndim >= 2,
        f"noise has shape {tuple(noise.shape)} and dtype {noise.dtype}; allowed: complex (coil, samples)",
    )
    samples = noise.flatten(1).to(torch.complex128)
    coils, count = samples.shape
    require(
        count >= SAMPLES_PER_COIL * coils,
        f"noise has {count} samples of {coils} coils; allowed: >= {SAMPLES_PER_COIL} a coil",
    )
    require(bool(torch.isfinite(samples).all()), "noise has NaN or infinite values; allowed: finite values")
    return samples @ samples.mH / (2 * count)


def corner_noise_covariance(kspace: torch.Tensor) -> torch.Tensor:
    """Estimate the variances of Σ, and no correlations, without a noise scan; complex (coil, height, width).

    From the corners of k-space, beyond :data:`CORNERS` of what was measured (samples that are zero in all coils were
    not), in the darkest :data:`DARK` of the pixels of the low-pass image: there is the least signal, and the noise of
    one has no part in the choice of the other. What signal is left is a correlation of coils first of all. Whitening by
    that would remove the image: in a phantom of 64×64 variances are right within 30 %, where the combination of
    coils that sees the object has twice its noise, and twelve times in the corners alone. Where there is no air, or the
    object folds onto it, variances have more signal. Two coils with a correlation above 0.9 are a
    :class:`DeepenError`; less goes unseen, and a noise scan is safer.
    """
    require(
        kspace.is_complex() and kspace.ndim == 3,
        f"kspace has shape {tuple(kspace.shape)} and dtype {kspace.dtype}; allowed: complex (coil, height, width)",
    )
    kspace = kspace.to(torch.complex128)
    measured = (kspace != 0).any(dim=0)
    corner, window = measured, torch.ones_like(measured, dtype=torch.float64)
    for axis, size in enumerate(measured.shape):
        distance = (torch.arange(size, device=kspace.device) - size // 2).abs().double().unsqueeze(1 - axis)
        share = distance / (distance * measured).amax().clamp_min(1)
        corner, window = corner & (share > CORNERS), window * torch.exp(-(share**2) / (2 * _WINDOW_STD**2))
    brightness = torch.linalg.vector_norm(ifft2(window * kspace), dim=0)
    dark = brightness <= brightness.flatten().quantile(DARK)
    # Pixels of a part of k-space are not independent: there are as many samples as that has, in this share of pixels.
    count, least = int(DARK * corner.sum()), SAMPLES_PER_COIL * len(kspace)
    require(
        count >= least,
        f"the corners of k-space have {count} samples of noise; allowed for {len(kspace)} coils: >= {least}",
    )
    covariance = noise_covariance(ifft2(corner * kspace)[:, dark]) / corner.double().mean()
    std = covariance.diagonal().real.sqrt()
    correlation = float((covariance.abs() / (std[:, None] * std)).fill_diagonal_(0).amax())
    require(
        correlation <= _CORRELATION,
        f"the corners of k-space hold signal: two coils have a correlation of {correlation:.2f} there; allowed: <= "
        f"{_CORRELATION}, or the covariance of a noise scan",
    )
    return covariance.diagonal().diag()


def _whitening(covariance: torch.Tensor, coils: int) -> tuple[torch.Tensor, float]:
    """Return L⁻¹, complex double, and σ̄ of a covariance of so many coils."""
    shape = tuple(covariance.shape)
    require(
        coils > 0 and shape == (coils, coils),
        f"covariance has shape {shape}; allowed for {coils} coils: ({coils}, {coils})",
    )
    require(bool(torch.isfinite(covariance).all()), "covariance has NaN or infinite values; allowed: finite values")
    matrix = covariance.to(torch.complex128)
    off, largest = float((matrix - matrix.mH).abs().max()), float(matrix.abs().max())
    require(
        off <= _HERMITIAN * largest,
        f"covariance differs from its conjugate transpose by {off:.2g}; allowed: a Hermitian matrix",
    )
    values = torch.linalg.eigvalsh(matrix)
    smallest, largest = float(values[0]), float(values[-1])
    require(
        smallest > _DEFINITE * largest,
        f"covariance has eigenvalues from {smallest:.2g} to {largest:.2g}; allowed: a positive definite matrix, the "
        f"smallest above {_DEFINITE:g} of the largest (leave out coils without noise)",
    )
    factor = torch.linalg.cholesky((matrix + matrix.mH) / 2)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(coils).to(factor), upper=False)
    # The sum of squares of L⁻¹ is tr Σ⁻¹.
    return inverse, float((coils / inverse.abs().square().sum()).sqrt())
