"""The maximum-likelihood objective of DEEPEN: lower the energy of true images, raise that of samples."""

import torch


def contrastive_loss(true_energy: torch.Tensor, sample_energy: torch.Tensor, *, penalty: float = 0.0) -> torch.Tensor:
    r"""Severed maximum-likelihood loss (DEEPEN, equations 10 and 13).

    .. math:: \frac{1}{N} \sum_i E(x_i^+ + n_i) - E(x_i^-)
              \; + \; \frac{\alpha}{N E_0} \sum_i E(x_i^+ + n_i)^2 + E(x_i^-)^2

    with x⁺ the fully sampled images plus data noise and x⁻ samples of the posterior of the same data, drawn without a
    graph: the gradient through the chain vanishes for exact samples (equation 9), and ½‖Ax − b‖² has no gradient with
    respect to the weights. The penalty keeps the energies near zero, where a constant added to E would let them drift.

    Parameters
    ----------
    true_energy, sample_energy
        E(x⁺ + n) and E(x⁻), real (batch,), with a graph to the weights.
    penalty
        α/E₀ ≥ 0. E₀ is a unit of energy, :func:`energy_unit`, with which α means the same at every image size.

    Returns
    -------
    Scalar.
    """
    gap = true_energy.mean() - sample_energy.mean()
    return gap + penalty * (true_energy.square().mean() + sample_energy.square().mean())


def energy_unit(num_pixels: int, noise_std: float) -> float:
    """Return E₀ = Pε²/2, the energy of data noise in P pixels.

    Noise of standard deviation cε per real component has squared norm 2Pc²ε²; at the curvature 1/(2c²) that the
    temperature asks for, its energy is half of that times the curvature, whatever c.
    """
    return 0.5 * num_pixels * noise_std**2
