"""What is measured on: sizes, and random numbers of these sizes."""

from dataclasses import dataclass

import torch

from direct_deepen.errors import require
from direct_deepen.physics import SenseOperator, normalize_sensitivity_map
from direct_deepen.physics.noise import complex_normal
from direct_deepen.priors import QuadraticEnergy


@dataclass(frozen=True)
class Setting:
    """Sizes of a measurement.

    Attributes
    ----------
    size
        Height and width of the image.
    channels
        Channels of the energy.
    coils
        Number of coils.
    batch
        Images at once.
    activation
        Activation of the energy.
    repetitions
        Turns; figures are medians over them.
    device
        Where to compute: ``cpu``, or a GPU such as ``cuda``.

    Raises
    ------
    DeepenError
        If a size is below one, or the device is not there.
    """

    size: int = 320
    channels: int = 64
    coils: int = 12
    batch: int = 1
    activation: str = "elu"
    repetitions: int = 7
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("size", "channels", "coils", "batch", "repetitions"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)!r}; allowed: >= 1")
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        allowed = ["cpu", *(["cuda"] if gpus else []), *gpus]
        require(self.device in allowed, f"device is {self.device!r}; allowed here: {', '.join(allowed)}")


@dataclass(frozen=True)
class Workload:
    """Random numbers in place of a reconstruction: how long they take depends on their shapes only.

    Attributes
    ----------
    A
        Forward model with a random mask of one sample in four.
    masked_kspace
        Data of ``image``.
    image
        Complex (batch, height, width).
    energy
        Five layers with small random weights: a smooth bowl.
    """

    A: SenseOperator
    masked_kspace: torch.Tensor
    image: torch.Tensor
    energy: QuadraticEnergy


def workload(setting: Setting) -> Workload:
    """Return the workload of a setting; the same one every time."""
    generator = torch.Generator().manual_seed(0)
    batch, size = setting.batch, setting.size
    maps = complex_normal((batch, setting.coils, size, size), generator=generator)
    mask = torch.rand(batch, 1, size, size, generator=generator) < 0.25
    mask[..., size // 2, size // 2] = True
    image = 0.3 * complex_normal((batch, size, size), generator=generator)
    # Without memory there is nothing to draw initial weights for.
    with torch.device("meta"):
        energy = QuadraticEnergy(hidden_channels=setting.channels, activation=setting.activation)
    energy.to_empty(device="cpu")
    for weight in energy.parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        weight.detach().copy_(0.5 * drawn / weight[0].numel() ** 0.5)
    A = SenseOperator(normalize_sensitivity_map(maps).to(setting.device), mask.to(setting.device))
    image = image.to(setting.device)
    return Workload(A, A.forward(image), image, energy.to(setting.device))
