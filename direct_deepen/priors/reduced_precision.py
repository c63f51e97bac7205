"""∇E by convolutions of fewer digits, for samplers, whose noise is larger than their rounding."""

import torch

from direct_deepen.errors import DeepenError
from direct_deepen.priors.convolutional_energy import ConvolutionalEnergy
from direct_deepen.priors.energy import DifferentiableEnergy


class ReducedPrecision:
    """An energy whose convolutions run in 16 bits; the rest, and what goes in and comes out, stay as they are.

    Faster where the hardware has such convolutions: GPUs with tensor cores, CPUs with AVX512-BF16 or AMX. On others it
    is slower. E and ∇E have about three digits: enough for a Langevin chain (projects/speed has what it costs in
    quality), too few for MAP, which compares costs.

    The energy has to be one of convolutions, a :class:`DeepenError` otherwise, in single precision: double precision
    stays as it is. ``dtype`` is ``torch.bfloat16`` or ``torch.float16``.
    """

    def __init__(self, energy: DifferentiableEnergy, dtype: torch.dtype = torch.bfloat16) -> None:
        if not isinstance(energy, ConvolutionalEnergy):
            raise DeepenError(f"energy is {energy!r}; allowed in reduced precision: ConvEnergy or QuadraticEnergy")
        self.energy = energy
        self.dtype = dtype

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return E of every image, real (batch,)."""
        return self.value_and_grad(image)[0]

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (batch,), and ∇E, complex (batch, height, width)."""
        with torch.autocast(image.device.type, self.dtype):
            return self.energy.value_and_grad(image)
