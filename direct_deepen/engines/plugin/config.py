"""Configuration of the models, as DIRECT looks it up: the network's keys here, the engine's in its settings."""

from dataclasses import dataclass, field

from direct.config.defaults import ModelConfig

from direct_deepen.engines.diffusion_settings import ALPSSettings, DPSSettings
from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.engines.system_settings import ELDERSettings, MoLSettings, MuSESettings, PnPISTASettings


@dataclass
class NetworkConfig(ModelConfig):
    """Keys of the networks of all priors."""

    hidden_channels: int = 64
    num_layers: int = 5
    activation: str = "elu"


@dataclass
class QuadraticEnergyConfig(DeepenSettings, NetworkConfig):
    """Keys of :class:`direct_deepen.QuadraticEnergy` and of the engine."""

    weight: float = 0.25


@dataclass
class ConvEnergyConfig(DeepenSettings, NetworkConfig):
    """Keys of :class:`direct_deepen.ConvEnergy` and of the engine."""

    activation: str = "relu"
    head: str = "pooled"
    image_size: tuple[int, int] | None = None
    top: str = "absolute"
    top_width: float = 1.0


@dataclass
class MuSEConfig(MuSESettings, NetworkConfig):
    """Keys of MuSE: the energy, and those of its engine."""


@dataclass
class PnPISTAConfig(PnPISTASettings, NetworkConfig):
    """Keys of PnPISTA: the denoiser, and those of its engine."""

    activation: str = "relu"


@dataclass
class ELDERConfig(ELDERSettings, NetworkConfig):
    """Keys of ELDER: the energy, the first step α, and those of its engine."""

    step_size: float = 1.0


@dataclass
class MoLConfig(MoLSettings, NetworkConfig):
    """Keys of MoL: the network, the first weight λ of the data, and those of its engine."""

    activation: str = "relu"
    data_weight: float = 10.0


@dataclass
class DPSConfig(DPSSettings, ModelConfig):
    """Keys of DPS: the network of the diffusion, the decay of its average, and those of its engine."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256, 512])
    num_blocks: int = 4
    preconditioning: str = "variance_exploding"
    image_std: float = 0.3
    average_decay: float = 0.999


@dataclass
class ALPSConfig(ALPSSettings, ModelConfig):
    """Keys of ALPS: the network of the energies, the decay of its average, and those of its engine."""

    channels: list[int] = field(default_factory=lambda: [32, 64, 128])
    num_blocks: int = 2
    image_std: float = 0.3
    average_decay: float = 0.999
