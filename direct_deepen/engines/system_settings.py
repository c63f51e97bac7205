"""What the engines of the systems that DEEPEN is compared with read from the model section."""

from dataclasses import dataclass, field

from direct_deepen.engines.settings import MapSettings, StoppingSettings, SystemSettings, TrainingSettings
from direct_deepen.errors import require, require_count, require_positive, require_weight

# ---- MuSE


@dataclass
class ScoreMatchingSettings(TrainingSettings):
    """Denoising score matching over all noise levels up to one.

    Attributes
    ----------
    max_noise_std
        Largest noise level, per real component, in scaled intensities.
    image_energy_weight
        λ of the term that takes the energy of noise-free images to zero; 0 is MuSE's own objective.
    """

    max_noise_std: float = 0.1
    image_energy_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("model.objective.max_noise_std", self.max_noise_std)
        require_weight("model.objective.image_energy_weight", self.image_energy_weight)


@dataclass
class MuSESettings(SystemSettings):
    """MuSE: quadratic energy, denoising score matching, MAP."""

    objective: ScoreMatchingSettings = field(default_factory=ScoreMatchingSettings)
    inference: MapSettings = field(default_factory=MapSettings)


# ---- PnP-ISTA


@dataclass
class DenoisingSettings(TrainingSettings):
    """Denoising at one noise level.

    Attributes
    ----------
    noise_std
        The noise level, per real component, in scaled intensities.
    """

    noise_std: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("model.objective.noise_std", self.noise_std)


@dataclass
class ProximalSettings(StoppingSettings):
    """Proximal iteration.

    Attributes
    ----------
    step_size
        s = α/η², below 2.
    """

    step_size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.step_size
        require(0 < value < 2, f"model.inference.step_size is {value!r}; allowed: > 0 and < 2")


@dataclass
class PnPISTASettings(SystemSettings):
    """PnP-ISTA: denoiser, denoising at one level, proximal iteration."""

    objective: DenoisingSettings = field(default_factory=DenoisingSettings)
    inference: ProximalSettings = field(default_factory=ProximalSettings)


# ---- ELDER


@dataclass
class UnrolledSettings:
    """A fixed number of gradient steps.

    Attributes
    ----------
    num_steps
        K.
    """

    num_steps: int = 30

    def __post_init__(self) -> None:
        require_count("model.inference.num_steps", self.num_steps)


@dataclass
class ELDERSettings(SystemSettings):
    """ELDER: quadratic energy, mean squared error through all steps, gradient iterations with a learned step."""

    inference: UnrolledSettings = field(default_factory=UnrolledSettings)


# ---- MoL


@dataclass
class EquilibriumSettings(StoppingSettings):
    """The fixed point of a monotone operator, in training and prediction alike.

    Attributes
    ----------
    damping
        α, at most 1; the result does not depend on it: ``tolerance`` is multiplied by it.
    data_weight_factor
        Factor on the learned weight λ of the data in reconstruction; 1 is what training means.
    """

    tolerance: float = 1e-4
    max_iterations: int = 200
    damping: float = 1.0
    data_weight_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.damping
        require(0 < value <= 1, f"model.inference.damping is {value!r}; allowed: > 0 and <= 1")
        require_positive("model.inference.data_weight_factor", self.data_weight_factor)


@dataclass
class MonotoneSettings(TrainingSettings):
    """Mean squared error of the equilibrium, with a barrier.

    Attributes
    ----------
    monotonicity
        m, 0 < m < 1: the Lipschitz constant of the network is kept below 1 − m.
    barrier_weight
        β of −β log(1 − m − L), L the local Lipschitz constant of the network.
    barrier_iterations
        Power iterations for L in every update.
    """

    monotonicity: float = 0.1
    barrier_weight: float = 1e-4
    barrier_iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.monotonicity
        require(0 < value < 1, f"model.objective.monotonicity is {value!r}; allowed: > 0 and < 1")
        require_positive("model.objective.barrier_weight", self.barrier_weight)
        require_count("model.objective.barrier_iterations", self.barrier_iterations)


@dataclass
class MoLSettings(SystemSettings):
    """MoL: network with a monotone complement, mean squared error of the equilibrium, fixed point."""

    objective: MonotoneSettings = field(default_factory=MonotoneSettings)
    inference: EquilibriumSettings = field(default_factory=EquilibriumSettings)
