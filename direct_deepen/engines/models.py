"""The priors as DIRECT builds them, from a whole model section: ``model_name: deepen.priors.<Class>``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Self, cast

import torch
from direct.config.defaults import ModelConfig
from torch import nn

from direct_deepen import priors
from direct_deepen.engines.commands import bad_input_told
from direct_deepen.engines.settings import EngineSettings, plain, system_of
from direct_deepen.errors import DeepenError, require
from direct_deepen.inference.base import attach_learned
from direct_deepen.parts import find_outside


@dataclass
class PriorConfig(EngineSettings, ModelConfig):
    """Keys of every model section: those of the engine."""

    engine_name: str | None = "DeepenEngine"


@dataclass
class NetworkConfig(PriorConfig):
    """Keys of the priors that are a stack of convolutions."""

    hidden_channels: int = 64
    num_layers: int = 5
    activation: str = "relu"


DenoiserConfig = NetworkConfig
ImageNetworkConfig = NetworkConfig


@dataclass
class QuadraticEnergyConfig(NetworkConfig):
    """Keys of :class:`direct_deepen.QuadraticEnergy`."""

    activation: str = "elu"
    weight: float = 0.25
    border: str = "zeros"


@dataclass
class ConvEnergyConfig(NetworkConfig):
    """Keys of :class:`direct_deepen.ConvEnergy`."""

    head: str = "pooled"
    image_size: tuple[int, int] | None = None
    top: str = "absolute"
    top_width: float = 1.0
    border: str = "zeros"


@dataclass
class AveragedConfig(PriorConfig):
    """Keys of the networks of all noise levels, and the decay of the average of their weights."""

    image_std: float = 0.3
    average_decay: float = 0.999
    """d_max of :class:`direct_deepen.priors.Averaged`."""


@dataclass
class NoiseConditionalEnergyConfig(AveragedConfig):
    """Keys of :class:`direct_deepen.priors.NoiseConditionalEnergy`."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 128])
    num_blocks: int = 2
    noise_factor: float = 2**0.5
    smallest_noise_std: float = 0.0
    border: str = "zeros"


@dataclass
class DiffusionDenoiserConfig(AveragedConfig):
    """Keys of :class:`direct_deepen.priors.DiffusionDenoiser`."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256, 512])
    num_blocks: int = 4
    preconditioning: str = "variance_exploding"


@dataclass
class ExternalConfig(PriorConfig):
    """Keys of a prior of another package."""

    prior: str = ""
    """Its import path, ``my_module:MyEnergy``, or the name of an entry point of the group ``direct_deepen.priors``."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What its constructor is given."""


def _has(prior: nn.Module, need: str) -> bool:
    """Return whether a prior has what a part needs of it: see :class:`~direct_deepen.parts.Part`."""
    arguments = {"forward of an image": 1, "forward of a level": 2}.get(need)
    if arguments is None:
        return hasattr(prior, need)
    try:
        signature(prior.forward).bind(*range(arguments))
    except TypeError:
        return False
    # At a noise level an energy returns a number, no image.
    return arguments == 1 or not hasattr(prior, "at_noise")


class DirectModel(nn.Module):
    """What all models share inside DIRECT; the class after it in the order of bases is the prior.

    Of the section the prior gets the keys that it names. The numbers that the inference learns are made here.
    """

    def __init__(self, **section: Any) -> None:
        with bad_input_told():
            self._build(plain(section))

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self:
        """Return the model of a section, outside of DIRECT's commands: bad input raises :class:`DeepenError`."""
        model = cls.__new__(cls)
        model._build(section)
        return model

    def _build(self, section: Mapping[str, Any]) -> None:
        build = super().__init__
        build(**{name: section[name] for name in signature(build).parameters if name in section})
        system = system_of(section)
        for kind, part in (("objective", system.objective), ("inference", system.inference)):
            require(
                any(_has(self, need) for need in part.needs),
                f"model.{kind}.name: {type(part).__name__} asks for a prior with {' or '.join(part.needs)}, which "
                f"{type(self).__name__} has not; allowed: another model.model_name, or another {kind}",
            )
        attach_learned(self, system.inference, "model.inference")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move as any module does; a CUDA device that is not there is bad input. DIRECT's default is ``cuda``."""
        with bad_input_told():
            for device in (torch.device(argument) for argument in args if isinstance(argument, str | torch.device)):
                found = torch.cuda.device_count() if device.type == "cuda" else 0
                require(
                    device.type != "cuda" or (device.index or 0) < found,
                    f"device is '{device}' but {f'only {found}' if found else 'no'} CUDA device is found; "
                    "allowed here: --device cpu",
                )
        return super().to(*args, **kwargs)


class ConvEnergy(DirectModel, priors.ConvEnergy):
    """:class:`direct_deepen.ConvEnergy`."""


class QuadraticEnergy(DirectModel, priors.QuadraticEnergy):
    """:class:`direct_deepen.QuadraticEnergy`."""


class Denoiser(DirectModel, priors.Denoiser):
    """:class:`direct_deepen.priors.Denoiser`."""


class ImageNetwork(DirectModel, priors.ImageNetwork):
    """:class:`direct_deepen.priors.ImageNetwork`."""


class _AveragedDenoiser(nn.Module):
    def __init__(
        self, channels: list[int], num_blocks: int, preconditioning: str, image_std: float, average_decay: float
    ) -> None:
        super().__init__()
        network = priors.DiffusionDenoiser(
            channels=channels, num_blocks=num_blocks, preconditioning=preconditioning, image_std=image_std
        )
        self.averaged = priors.Averaged(network, average_decay)


class DiffusionDenoiser(DirectModel, _AveragedDenoiser):
    """:class:`direct_deepen.priors.DiffusionDenoiser`, with the average of its weights, which is what reconstructs."""

    def forward(self, image: torch.Tensor, noise_std: torch.Tensor | float) -> torch.Tensor:
        """Return D(x, σ)."""
        return self.averaged(image, noise_std)

    def at(self, noise_std: float) -> priors.DenoisedResidual:
        """Return x − D(x, σ) in the place of a gradient."""
        return cast("priors.DiffusionDenoiser", self.averaged.current).at(noise_std)


class _AveragedEnergy(nn.Module):
    def __init__(
        self,
        channels: list[int],
        num_blocks: int,
        image_std: float,
        noise_factor: float,
        smallest_noise_std: float,
        average_decay: float,
        border: str = "zeros",
    ) -> None:
        super().__init__()
        energy = priors.NoiseConditionalEnergy(
            channels=channels,
            num_blocks=num_blocks,
            image_std=image_std,
            noise_factor=noise_factor,
            smallest_noise_std=smallest_noise_std,
            border=border,
        )
        self.averaged = priors.Averaged(energy, average_decay)


class NoiseConditionalEnergy(DirectModel, _AveragedEnergy):
    """:class:`direct_deepen.priors.NoiseConditionalEnergy`, with the average of its weights."""

    def forward(self, image: torch.Tensor, noise_std: torch.Tensor | float) -> torch.Tensor:
        """Return E_σ(x)."""
        return self.averaged(image, noise_std)

    def at(self, noise_std: float) -> priors.Energy:
        """Return E_σ."""
        return self._energy.at(noise_std)

    def at_noise(self, noise_std: float) -> priors.Energy:
        """Return the energy of data with noise ε."""
        return self._energy.at_noise(noise_std)

    @property
    def _energy(self) -> priors.NoiseConditionalEnergy:
        return cast("priors.NoiseConditionalEnergy", self.averaged.current)


class _ExternalPrior(nn.Module):
    def __init__(self, prior: str, arguments: dict[str, Any]) -> None:
        super().__init__()
        kind = find_outside(prior, "priors", "model.prior")
        try:
            self.prior = kind(**arguments)
        except TypeError as error:
            raise DeepenError(f"model.arguments is {arguments!r}; allowed: those of {prior} ({error})") from error


class External(DirectModel, _ExternalPrior):
    """A prior of another package: an energy, a denoiser, whatever the objective and the inference ask for."""

    def forward(self, *arguments: Any) -> torch.Tensor:
        """Call the prior."""
        return self.prior(*arguments)

    def __getattr__(self, name: str) -> Any:
        """Return what the prior has besides, such as ``value_and_grad``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "prior":
                raise
            return getattr(self.prior, name)
