"""The model section of a configuration: what every key means, its default, and what is allowed."""

from dataclasses import dataclass, field
from itertools import pairwise

from direct_deepen.data.coil_maps import COIL_MAPS
from direct_deepen.errors import (
    require,
    require_choice,
    require_count,
    require_fraction,
    require_positive,
    require_weight,
)

ESTIMATORS = ("map", "posterior_mean")
CONVOLUTIONS = ("float32", "bfloat16")


@dataclass
class ChainStartSettings:
    """One kind of start of the training chains.

    Attributes
    ----------
    fraction
        Share of the images of a batch whose chains start this way, relative to the other kinds.
    num_steps
        Langevin steps of these chains.
    map_steps
        Steps of MAP before them. A posterior with little data has slow directions: chains of few steps never come to
        minima that MAP finds, so that nothing would raise the energy there.
    """

    fraction: float = 0.0
    num_steps: int = 15
    map_steps: int = 0


@dataclass
class ChainSettings:
    """The Langevin chains of training.

    Attributes
    ----------
    noise
        Chains from zero-mean Gaussian noise, the paper's.
    sense
        Chains from the SENSE solution plus noise of standard deviation ε.
    persistent
        Chains that go on from where the same slice with the same mask was left; from SENSE the first time. Chains
        that begin anew every time and stop short of their target teach the energy the transient: it rises on the
        samples without end.
    step_size
        τ; null adapts it to the curvature during the first half of the chain and then freezes it.
    max_stored
        Images kept for the persistent chains; the one unused for longest goes first.
    """

    noise: ChainStartSettings = field(default_factory=lambda: ChainStartSettings(0.0, 60))
    sense: ChainStartSettings = field(default_factory=lambda: ChainStartSettings(0.0, 15))
    persistent: ChainStartSettings = field(default_factory=lambda: ChainStartSettings(1.0, 15, 8))
    step_size: float | None = None
    max_stored: int = 2048

    def starts(self) -> dict[str, ChainStartSettings]:
        """Return the kinds of start by name."""
        return {"noise": self.noise, "sense": self.sense, "persistent": self.persistent}

    def __post_init__(self) -> None:
        for name, start in self.starts().items():
            key = f"model.objective.chains.{name}"
            require_fraction(f"{key}.fraction", start.fraction)
            require_count(f"{key}.num_steps", start.num_steps)
            require_count(f"{key}.map_steps", start.map_steps, 0)
        total = sum(start.fraction for start in self.starts().values())
        require(total > 0, f"model.objective.chains.*.fraction add up to {total!r}; allowed: > 0")
        if self.step_size is not None:
            require_positive("model.objective.chains.step_size", self.step_size)
        require_count("model.objective.chains.max_stored", self.max_stored)


@dataclass
class GuardSettings:
    """What the guard of contrastive training takes for trouble, besides NaN, infinity and chains that diverge.

    Attributes
    ----------
    max_gap
        Limit of |E⁺ − E⁻| in units of E₀, the energy of data noise.
    max_curvature
        Limit of the difference quotients of ∇E along the chains.
    interval
        Good updates between two remembered states.
    max_rollbacks
        Rollbacks before training ends with an error; 0 ends it at the first trouble.
    """

    max_gap: float = 20.0
    max_curvature: float = 4.0
    interval: int = 10
    max_rollbacks: int = 10

    def __post_init__(self) -> None:
        for name in ("max_gap", "max_curvature"):
            value = getattr(self, name)
            # Infinity is allowed: it switches the limit off.
            require(value > 0, f"model.objective.guard.{name} is {value!r}; allowed: > 0")
        require_count("model.objective.guard.interval", self.interval)
        require_count("model.objective.guard.max_rollbacks", self.max_rollbacks, 0)


@dataclass
class TrainingSettings:
    """What the objectives of all systems share.

    Attributes
    ----------
    random_phase
        Share of the training slices that get a smooth phase drawn at random, for priors that are to serve with coil
        maps of any phase. DIRECT's maps leave images real; a prior trained on these alone takes a phase for an error.
    guard
        When training goes back to an earlier state with half the learning rate.
    """

    random_phase: float = 0.0
    guard: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        require_fraction("model.objective.random_phase", self.random_phase)


@dataclass
class ObjectiveSettings(TrainingSettings):
    """Training of DEEPEN: denoising score matching first, then maximum likelihood.

    Attributes
    ----------
    warm_start_iterations
        Iterations of denoising score matching before the contrastive ones.
    warm_start_noise_std
        Largest noise level of score matching, per real component, in scaled intensities.
    warm_start_energy_weight
        λ of the term that takes the energy of noise-free images to zero during score matching. Without it MAP leaves
        the images for spurious minima of lower energy.
    data_noise_factor
        c: true images get noise of standard deviation c·ε per real component. Samples carry noise of at least ε; below
        c = 1 no energy can explain both, and training diverges. √2 is a variance of 2ε².
    energy_penalty
        α of α·mean(E⁺² + E⁻²)/E₀, which holds images at the bottom during contrastive training; E₀ = Pε²/2 is the
        energy of data noise in P pixels. Training is stable without it, but MAP finds stripes of lower energy.
    chains
        The chains that draw x⁻.
    """

    warm_start_iterations: int = 1000
    warm_start_noise_std: float = 0.1
    warm_start_energy_weight: float = 0.3
    data_noise_factor: float = 2**0.5
    energy_penalty: float = 0.01
    chains: ChainSettings = field(default_factory=ChainSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("model.objective.warm_start_iterations", self.warm_start_iterations, 0)
        require_positive("model.objective.warm_start_noise_std", self.warm_start_noise_std)
        require_positive("model.objective.data_noise_factor", self.data_noise_factor)
        for name in ("warm_start_energy_weight", "energy_penalty"):
            require_weight(f"model.objective.{name}", getattr(self, name))

    @property
    def score_scale(self) -> float:
        """κ of score matching at which the warm start has the temperature of the contrastive phase."""
        return 1 / (2 * self.data_noise_factor**2)


@dataclass
class StoppingSettings:
    """When an iteration ends.

    Attributes
    ----------
    tolerance
        Relative change, of the cost or of the image, below which it does.
    max_iterations
        When it ends anyway.
    """

    tolerance: float = 1e-6
    max_iterations: int = 500

    def __post_init__(self) -> None:
        require_positive("model.inference.tolerance", self.tolerance)
        require_count("model.inference.max_iterations", self.max_iterations)


@dataclass
class MapSettings(StoppingSettings):
    """MAP by majorize-minimize.

    Attributes
    ----------
    prior_weight
        w of the cost ½‖Ax − b‖² + wE(x).
    """

    prior_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("model.inference.prior_weight", self.prior_weight)


@dataclass
class SampleSettings:
    """How many samples of the posterior, how they are drawn together, and what is written of them.

    Attributes
    ----------
    num_samples
        Samples of an image that are independent: chains, where there are chains.
    max_images
        Images given to the network at once.
    quantiles
        Probabilities of the quantiles of the magnitude that are written; increasing, none for no quantiles.
    save_samples
        Whether the samples themselves are written: 8 bytes a pixel and sample, held in memory until the volume is done.
    """

    num_samples: int = 16
    max_images: int = 32
    quantiles: list[float] = field(default_factory=lambda: [0.05, 0.25, 0.5, 0.75, 0.95])
    save_samples: bool = False

    def __post_init__(self) -> None:
        require_count("model.inference.num_samples", self.num_samples)
        require_count("model.inference.max_images", self.max_images)
        ends = [0.0, *self.quantiles, 1.0]
        require(
            all(lower < upper for lower, upper in pairwise(ends)),
            f"model.inference.quantiles is {list(self.quantiles)!r}; allowed: increasing, between 0 and 1",
        )


@dataclass
class InferenceSettings(MapSettings, SampleSettings):
    """Reconstruction in validation and ``direct predict``; ``prior_weight`` holds for MAP and posterior alike.

    Attributes
    ----------
    estimator
        ``map``: majorize-minimize. ``posterior_mean``: Langevin samples, their mean as reconstruction, mean, standard
        deviation and MAP beside it.
    num_steps
        Steps of every chain.
    keep
        States kept of every chain; R̂ needs four.
    start
        ``sense``, ``noise`` or ``map``: where the chains start.
    step_size
        τ; null adapts it during burn-in.
    preconditioner
        μ of chains that step in the metric of the data, which converge in a quarter of the steps; null for the paper's.
    convolutions
        ``float32``, or ``bfloat16``: precision of the convolutions in the gradients of the chains. MAP keeps float32.
    """

    estimator: str = "map"
    num_steps: int = 100
    keep: int = 4
    start: str = "map"
    step_size: float | None = None
    preconditioner: float | None = None
    convolutions: str = "float32"

    def __post_init__(self) -> None:
        MapSettings.__post_init__(self)
        SampleSettings.__post_init__(self)
        require_choice("model.inference.estimator", self.estimator, ESTIMATORS)
        require_choice("model.inference.start", self.start, ("sense", "noise", "map"))
        require_choice("model.inference.convolutions", self.convolutions, CONVOLUTIONS)
        for name in ("step_size", "preconditioner"):
            if getattr(self, name) is not None:
                require_positive(f"model.inference.{name}", getattr(self, name))
        require_count("model.inference.num_steps", self.num_steps)
        require(
            1 <= self.keep <= self.num_steps,
            f"model.inference.keep is {self.keep!r}; allowed: 1 to model.inference.num_steps = {self.num_steps}",
        )


@dataclass
class SystemSettings:
    """What the engines of all systems read from the model section.

    Attributes
    ----------
    sense_regularization
        λ of the SENSE solution that reconstructions start from.
    coil_maps
        ``direct``: as DIRECT's transforms estimate them. ``espirit``: by sigpy, from the fully sampled centre of the
        masked k-space, cached on disk.
    objective
        Training.
    """

    sense_regularization: float = 0.01
    coil_maps: str = "direct"
    objective: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        require_positive("model.sense_regularization", self.sense_regularization)
        require_choice("model.coil_maps", self.coil_maps, COIL_MAPS)


@dataclass
class DeepenSettings(SystemSettings):
    """What DEEPEN's engine reads besides.

    Attributes
    ----------
    noise_std
        ε of the posterior ∝ exp(−2C/ε²), per real component, in scaled intensities: √2 times the measurement noise.
    noise_start_std
        Standard deviation per real component of the Gaussian noise that chains of kind ``noise`` start from, in
        training and inference alike: no more than score matching has shown the energy.
    objective
        Training.
    inference
        Reconstruction.
    """

    noise_std: float = 0.01
    noise_start_std: float = 0.1
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("model.noise_std", self.noise_std)
        require_positive("model.noise_start_std", self.noise_start_std)
