"""What the engines of diffusions and of energies distilled from them read from the model section."""

from dataclasses import dataclass, field

from direct_deepen.engines.settings import SampleSettings, SystemSettings, TrainingSettings
from direct_deepen.errors import (
    require,
    require_choice,
    require_count,
    require_fraction,
    require_positive,
    require_weight,
)


def _require_range(section: str, smallest: float, largest: float) -> None:
    require_positive(f"{section}.smallest_noise_std", smallest)
    require(
        smallest < largest < float("inf"),
        f"{section}.largest_noise_std is {largest!r}; allowed: finite and above smallest_noise_std = {smallest!r}",
    )


@dataclass
class NoiseRangeSettings(TrainingSettings):
    """Training over noise levels, whose logarithms are drawn uniformly.

    Attributes
    ----------
    smallest_noise_std, largest_noise_std
        Ends of the range, per real component, in scaled intensities.
    """

    smallest_noise_std: float = 0.005
    largest_noise_std: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_range("model.objective", self.smallest_noise_std, self.largest_noise_std)


@dataclass
class DPSInferenceSettings(SampleSettings):
    """Diffusion posterior sampling.

    Attributes
    ----------
    num_steps
        N, from time one to 1/N.
    base
        Λ of the variance-exploding diffusion: σ(t)² = (Λ^{2t} − 1)/(2 log Λ).
    guidance
        ζ, the length of the step towards the data.
    """

    num_steps: int = 1000
    base: float = 25.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("model.inference.num_steps", self.num_steps)
        value = self.base
        require(1 < value < float("inf"), f"model.inference.base is {value!r}; allowed: finite and > 1")
        require_weight("model.inference.guidance", self.guidance)


@dataclass
class SamplerSettings(SystemSettings):
    """What both engines read.

    Attributes
    ----------
    inference
        The samples.
    """

    inference: SampleSettings = field(default_factory=SampleSettings)


@dataclass
class DPSSettings(SamplerSettings):
    """DPS: diffusion network, score matching over noise levels, guided reverse diffusion."""

    objective: NoiseRangeSettings = field(default_factory=NoiseRangeSettings)
    inference: DPSInferenceSettings = field(default_factory=DPSInferenceSettings)


@dataclass
class DistillationSettings(NoiseRangeSettings):
    """Distillation of an energy.

    Attributes
    ----------
    teacher_configuration, teacher_checkpoint
        The trained diffusion: the files of a DPS. Only training reads them.
    least_noise_share
        Images get noise of a share of their noise level that is uniform between this and one. With one the energy
        sees what the diffusion sees, and annealed chains, whose measured part has little noise, diverge.
    """

    teacher_configuration: str = ""
    teacher_checkpoint: str = ""
    least_noise_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("model.objective.least_noise_share", self.least_noise_share)


ALPS_RULES = ("conditional", "mask_shaped", "langevin", "metropolis", "map")


@dataclass
class ALPSInferenceSettings(SampleSettings):
    """Annealed Langevin posterior sampling.

    Attributes
    ----------
    rule
        ``conditional``: the authors' draws around denoised means. ``mask_shaped``: the same with their shortcut for the
        noise, which leaves the coils out. ``langevin``, ``metropolis``: preconditioned steps that have the posterior as
        their limit, or exactly. ``map``: the authors' rule without noise, one image.
    noise_std
        η, the measurement noise per real component, in scaled intensities.
    num_levels, largest_noise_std, smallest_noise_std, exponent
        The schedule of noise levels.
    inner_steps
        K at every level.
    step_size
        h of ``langevin`` and ``metropolis``.
    """

    rule: str = "conditional"
    noise_std: float = 0.007
    num_levels: int = 10
    largest_noise_std: float = 1.0
    smallest_noise_std: float = 0.01
    exponent: float = 5.0
    inner_steps: int = 5
    step_size: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("model.inference.rule", self.rule, ALPS_RULES)
        for name in ("noise_std", "exponent", "step_size"):
            require_positive(f"model.inference.{name}", getattr(self, name))
        _require_range("model.inference", self.smallest_noise_std, self.largest_noise_std)
        require_count("model.inference.num_levels", self.num_levels, 2)
        require_count("model.inference.inner_steps", self.inner_steps)


@dataclass
class ALPSSettings(SamplerSettings):
    """ALPS: noise-conditional energy, distillation, annealed Langevin sampling."""

    objective: DistillationSettings = field(default_factory=DistillationSettings)
    inference: ALPSInferenceSettings = field(default_factory=ALPSInferenceSettings)
