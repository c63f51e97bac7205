"""Coil maps that leave no smooth phase to the image."""

import torch

from direct_deepen.physics.fourier import ifft2
from direct_deepen.physics.sense_operator import SenseOperator

_WINDOW_STD = 0.075
"""Standard deviation of the low-pass window, in samples over the matrix size."""


def align_phase(A: SenseOperator, masked_kspace: torch.Tensor) -> SenseOperator:
    r"""Return the operator with the image's smooth phase moved into its coil maps.

    Coil maps are known up to a phase e^{iφ(r)} that the image takes over with the opposite sign: S·e^{iφ} and
    x·e^{−iφ} explain the same data. DIRECT's ``RSS_ESTIMATE`` settles it so that the low-resolution image is real and
    positive; ESPIRiT, vendors' maps and simulations settle it otherwise, or not at all. An energy trained in one gauge
    is not valid in another, so energies of this package expect maps aligned like this:

    .. math:: S'_c = S_c\, e^{i \arg m}, \qquad m = \sum_c \bar S_c\, F^H (w\, b_c)

    with w a Gaussian window about the centre of k-space and b the data, complex (batch, coil, height, width), in any
    unit. An image x of it is the image x·e^{i arg m} of ``A``, so magnitudes are the same.
    """
    rows, columns = (
        (torch.arange(size, dtype=masked_kspace.real.dtype, device=masked_kspace.device) - size // 2) / size
        for size in masked_kspace.shape[-2:]
    )
    window = torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * _WINDOW_STD**2))
    image = (ifft2(window * masked_kspace) * A.sensitivity_map.conj()).sum(dim=1, keepdim=True)
    # A unit phase where there is no signal: angle(0) is 0.
    phase = torch.polar(torch.ones_like(image.real), image.angle())
    return SenseOperator(A.sensitivity_map * phase, A.sampling_mask)
