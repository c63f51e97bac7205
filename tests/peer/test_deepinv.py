r"""The same mathematics in deepinv, written by others: forward model, quadratic energy and Langevin chain.

Only ``make test-peer`` runs these tests. The package is imported by a fixture: ``make test`` neither needs it nor
waits for it.

What is called what:

================================  ==========================================  =======================================
here                              deepinv                                     what has to hold
================================  ==========================================  =======================================
complex (batch, height, width)    real (batch, 2, height, width)              real part first
(batch, coil, height, width)      real (batch, 2, coil, height, width)        real part first
E(x) = (w/2)‖x − ψ(x)‖²           ``GSPnP(ψ, alpha).potential``               w = alpha
∝ exp(−2C/ε²), C = ½‖Ax − b‖²+E   ∝ exp(−f − αg), f = ‖Ax − b‖²/2σ², g = E    σ = ε/√2, α = 2/ε²
x − τ∇C + ε√τ z                   x − η∇(f + αg) + √(2η) z                    η = ε²τ/2
ζ∇‖AD(x, σ) − b‖                  ``DPSDataFidelity(D, weight).grad``         weight = ζ
================================  ==========================================  =======================================
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from scipy import stats

from direct_deepen import ConvEnergy, QuadraticEnergy, SenseOperator, langevin, priors
from direct_deepen.inference import diffusion_posterior_sampling, proximal_iteration
from direct_deepen.physics import complex_normal
from direct_deepen.priors import DifferentiableEnergy
from direct_deepen.priors.networks import ACTIVATIONS

pytestmark = pytest.mark.peer


@pytest.fixture(scope="session")
def deepinv() -> ModuleType:
    import deepinv
    import deepinv.models.GSPnP  # a module, of a class of the same name

    return deepinv


def to_channels(values: torch.Tensor) -> torch.Tensor:
    """Complex (batch, ...) → real (batch, 2, ...), in an order of its own in memory."""
    return torch.stack([values.real, values.imag], dim=1)


def to_complex(channels: torch.Tensor) -> torch.Tensor:
    return torch.complex(channels[:, 0], channels[:, 1])


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    difference = actual.detach() - expected  # gradients of deepinv come with a graph
    return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(expected))


def multi_coil_mri(deepinv: ModuleType, A: SenseOperator) -> Any:
    maps = A.sensitivity_map
    return deepinv.physics.MultiCoilMRI(mask=A.sampling_mask.to(maps.real.dtype), coil_maps=maps)


# ---- Forward model

ROUNDING = {torch.complex128: 1e-12, torch.complex64: 1e-5}
"""Relative: a fast Fourier transform of this size loses a few digits of 1e-16 or 6e-8."""


@pytest.mark.parametrize("dtype", ROUNDING, ids=["double", "single"])
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 17), (16, 13), (17, 16)])
def test_multi_coil_mri_is_the_sense_operator_for_even_and_odd_sizes(
    deepinv, random_operator, draw, height, width, coils, dtype
):
    # Maps and masks differ within the batch, and the maps are not normalised.
    A = random_operator(2, coils, height, width, dtype=dtype, normalized=False)
    physics = multi_coil_mri(deepinv, A)
    image = draw(2, height, width, seed=5, dtype=dtype)
    kspace = draw(2, coils, height, width, seed=6, dtype=dtype)  # also where nothing is sampled
    tolerance = ROUNDING[dtype]
    assert relative_error(to_complex(physics.A(to_channels(image))), A.forward(image)) <= tolerance
    assert relative_error(to_complex(physics.A_adjoint(to_channels(kspace))), A.adjoint(kspace)) <= tolerance
    assert relative_error(to_complex(physics.A_adjoint_A(to_channels(image))), A.normal(image)) <= tolerance


# ---- Quadratic energy

SIGMA = 0.1
"""Denoisers of deepinv are told a noise level. Those here do not ask, or are asked at this one."""


class Denoiser(torch.nn.Module):
    """ψ(x) = x − r(x) on channels, as deepinv calls it."""

    def __init__(self, residual: torch.nn.Module) -> None:
        super().__init__()
        self.residual = residual

    def forward(self, channels: torch.Tensor, sigma: float) -> torch.Tensor:
        return channels - self.residual(channels)


class Residual(torch.nn.Module):
    """r(x) = x − ψ(x) of a denoiser of deepinv, as ours calls it."""

    def __init__(self, denoiser: torch.nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, channels: torch.Tensor) -> torch.Tensor:
        return channels - self.denoiser(channels, SIGMA)


def seeded(build: Callable[[], Any]) -> Any:
    """What ``build`` makes of the global generator at seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def scaled(energy: Any, factor: float) -> Any:
    """Fresh networks are nearly flat: larger weights make r and its Jacobian count."""
    for parameter in energy.parameters():
        parameter.detach().mul_(factor)
    return energy


@pytest.fixture(params=[*ACTIVATIONS, "GSDRUNet"])
def same_network_twice(request, deepinv) -> tuple[QuadraticEnergy, Any]:
    """Our energy and deepinv's gradient-step denoiser: with our network, by activation, or with deepinv's DRUNet."""
    if request.param == "GSDRUNet":
        theirs = seeded(lambda: deepinv.models.GSDRUNet(in_channels=2, out_channels=2, nb=1, nc=(4, 4, 8, 8)))
        ours = QuadraticEnergy(hidden_channels=1, num_layers=2)
        ours.residual = Residual(theirs.student_grad.model)
    else:
        build = {"hidden_channels": 8, "num_layers": 4, "activation": request.param}
        ours = scaled(seeded(lambda: QuadraticEnergy(**build)), 2.0)
        # A network of its own, which gets the same weights.
        copy = QuadraticEnergy(**build).residual
        copy.load_state_dict(ours.residual.state_dict())
        theirs = deepinv.models.GSPnP.GSPnP(Denoiser(copy))
    return ours, theirs


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_the_quadratic_energy_is_the_potential_of_a_gradient_step_denoiser(same_network_twice, draw, weight):
    ours, theirs = same_network_twice
    ours.weight = theirs.alpha = weight
    image = draw(3, 16, 24, dtype=torch.complex64)
    value, gradient = ours.value_and_grad(image)
    denoised = ours.denoise(image).detach()
    channels = to_channels(image)
    # deepinv computes the gradient in single precision, as x − ψ − Jᵀ(x − ψ): a few roundings of 6e-8 (measured: up to
    # 3e-7).
    assert relative_error(theirs.potential(channels, SIGMA), value) <= 1e-5
    assert relative_error(to_complex(theirs.potential_grad(channels, SIGMA)), gradient) <= 1e-5
    # E is even in x − ψ, so ψ has to be compared by itself.
    assert relative_error(to_complex(theirs.student_grad(channels, SIGMA)), denoised) <= 1e-5
    # Every image has its own E, and the Jacobian counts: the gradient w(x − ψ) of a wrong derivation would be seen.
    assert value.shape == (3,)
    assert relative_error(weight * (image - denoised), gradient) > 1e-2


def test_regularisation_by_this_denoiser_follows_the_gradient_of_the_energy(deepinv, same_network_twice, draw):
    # deepinv's demonstration of gradient-step denoisers: a RED prior, whose gradient is x − D(x), D = I − ∇E.
    ours, theirs = same_network_twice
    image = draw(3, 16, 24, dtype=torch.complex64)
    _, expected = ours.value_and_grad(image)
    gradient = to_complex(deepinv.optim.RED(theirs).grad(to_channels(image), SIGMA))
    assert relative_error(gradient, expected) <= 1e-5
    # x − (x − ∇E) cancels, but ∇E is not small against x: at most a digit is lost of seven.
    assert float(torch.linalg.vector_norm(expected)) > 0.1 * float(torch.linalg.vector_norm(image))


# ---- Langevin chains

NOISE_STD = 0.1
STEP_SIZE = 0.3
STEPS = 20
CHAINS = 300

LIMIT = 4.0
"""Standard errors, of statistics of whole images. By chance a correct one exceeds it once in 16 000 experiments."""


@dataclass(frozen=True)
class Problem:
    """One image to sample: C(x) = ½‖Ax − b‖² + E(x)."""

    A: SenseOperator
    kspace: torch.Tensor
    energy: DifferentiableEnergy


@pytest.fixture(scope="module", params=["Gaussian", "ConvEnergy"])
def problem(request, random_operator, gaussian_energy, draw) -> Problem:
    """Undersampled multi-coil data with a prior that is as strong as they are, Gaussian or a network."""
    A = random_operator(1, 2, 16, 16)
    kspace = A.forward(draw(1, 16, 16, seed=3))
    if request.param == "ConvEnergy":
        build = {"hidden_channels": 4, "num_layers": 3, "activation": "softplus", "top": "smooth"}
        return Problem(A, kspace, scaled(seeded(lambda: ConvEnergy(**build)), 3.0).double())
    vectors, _ = torch.linalg.qr(draw(256, 256, seed=5))
    curvature = torch.linspace(0.3, 2.0, 256, dtype=torch.float64)
    return Problem(A, kspace, gaussian_energy((vectors * curvature) @ vectors.mH / (0.5 * NOISE_STD**2), NOISE_STD))


def their_chains(
    deepinv: ModuleType,
    problem: Problem,
    *,
    num_steps: int,
    seed: int,
    start: torch.Tensor,
    noise_std: float = NOISE_STD,
    step_size: float = STEP_SIZE,
    energy_weight: float = 1.0,
) -> torch.Tensor:
    """Last states of deepinv's unadjusted chains for ∝ exp(−2C/ε²); complex (chain, height, width)."""
    energy = problem.energy
    # deepinv differentiates E by itself, so that its score owes nothing to our value_and_grad.
    sampler = deepinv.sampling.sampling_builder(
        "ULA",
        data_fidelity=deepinv.optim.L2(sigma=noise_std / math.sqrt(2)),
        prior=deepinv.optim.Prior(g=lambda channels, sigma: energy(to_complex(channels))),
        params_algo={
            "step_size": 0.5 * noise_std**2 * step_size,
            "alpha": 2 * energy_weight / noise_std**2,
            "sigma": SIGMA,  # for denoisers only
        },
        clip=None,
        max_iter=num_steps,
        burnin_ratio=0.0,
        thinning=1,
        history_size=1,
    )
    with torch.random.fork_rng(devices=[]):  # deepinv seeds the global generator
        kspace = to_channels(problem.kspace)
        sampler.sample(kspace, multi_coil_mri(deepinv, problem.A), x_init=to_channels(start), seed=seed)
    return to_complex(sampler.get_chain()[-1]["x"].detach())


def our_chains(problem: Problem, *, num_steps: int, seed: int, start: torch.Tensor) -> torch.Tensor:
    """Last states of our chains; complex (chain, height, width)."""
    return langevin(
        problem.A,
        problem.kspace,
        problem.energy,
        noise_std=NOISE_STD,
        generator=torch.Generator().manual_seed(seed),
        num_steps=num_steps,
        num_samples=start.shape[0],
        init=start[:, None],
        step_size=STEP_SIZE,
        max_images=start.shape[0],
    ).images[:, 0]


def test_one_langevin_step_moves_and_shakes_alike(deepinv, problem, draw):
    # What both draw is known, so it can be taken away: the rest is the same arithmetic in double precision. A wrong
    # temperature would leave noise behind, a wrong score or step another move.
    start = draw(3, 16, 16, seed=7)
    noise = complex_normal((3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.complex128)
    ours = our_chains(problem, num_steps=1, seed=1, start=start) - NOISE_STD * math.sqrt(STEP_SIZE) * noise - start
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        their_noise = to_complex(torch.randn_like(to_channels(start)))
    theirs = their_chains(deepinv, problem, num_steps=1, seed=2, start=start)
    theirs = theirs - math.sqrt(2 * 0.5 * NOISE_STD**2 * STEP_SIZE) * their_noise - start
    assert relative_error(theirs, ours) <= 1e-12
    # Both terms of the score are there to be compared.
    _, prior_gradient = problem.energy.value_and_grad(start)
    assert 0.1 < relative_error(-STEP_SIZE * prior_gradient, ours) < 10


def standard_errors_apart(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Differences of means (Welch) of independent rows; real (chain, ...) twice → (...)."""
    variance = first.var(dim=0) / first.shape[0] + second.var(dim=0) / second.shape[0]
    return (first.mean(dim=0) - second.mean(dim=0)).abs() / variance.sqrt()


def image_statistics(problem: Problem, images: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Per chain the squared distance to ``centre``, whose mean is the total variance, ½‖Ax − b‖² and E."""
    residual = problem.A.forward(images[:, None]) - problem.kspace
    return torch.stack(
        [
            (images - centre).abs().square().sum(dim=(1, 2)),
            0.5 * residual.abs().square().sum(dim=(1, 2, 3, 4)),
            problem.energy.value_and_grad(images)[0],
        ],
        dim=1,
    )


@pytest.fixture(scope="module")
def start(problem) -> torch.Tensor:
    """Where all chains start, Aᴴb: they are independent of one another, and need not forget it to have one law."""
    return problem.A.adjoint(problem.kspace).expand(CHAINS, -1, -1)


@pytest.fixture(scope="module")
def ours(problem, start) -> torch.Tensor:
    return our_chains(problem, num_steps=STEPS, seed=11, start=start)


def test_chains_of_many_steps_have_the_same_means_and_variances(deepinv, problem, start, ours):
    theirs = their_chains(deepinv, problem, num_steps=STEPS, seed=12, start=start)
    centre = (0.5 * (ours.mean(dim=0) + theirs.mean(dim=0))).expand(1, -1, -1)
    first, second = (image_statistics(problem, images, centre) for images in (ours, theirs))
    assert float(standard_errors_apart(first, second).max()) <= LIMIT
    # Every pixel by itself, its mean and its variance, real and imaginary part: the level that the largest of all of
    # these exceeds once in a thousand experiments (Bonferroni).
    first, second = (torch.view_as_real(images - centre).flatten(1) for images in (ours, theirs))
    first, second = (torch.cat([deviations, deviations.square()], dim=1) for deviations in (first, second))
    assert float(standard_errors_apart(first, second).max()) <= stats.norm.isf(1e-3 / first.shape[1] / 2)


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param({"noise_std": math.sqrt(2) * NOISE_STD}, id="temperature ε² instead of ε²/2"),
        pytest.param({"step_size": STEP_SIZE / 2}, id="step τ/2"),
        pytest.param({"energy_weight": 0.5}, id="half the energy"),
    ],
)
def test_a_mistake_of_a_factor_of_two_would_be_seen(deepinv, problem, start, ours, mistake):
    # What the test above could miss at this number of chains and steps: these are far beyond its limit.
    theirs = their_chains(deepinv, problem, num_steps=STEPS, seed=12, start=start, **mistake)
    centre = (0.5 * (ours.mean(dim=0) + theirs.mean(dim=0))).expand(1, -1, -1)
    first, second = (image_statistics(problem, images, centre) for images in (ours, theirs))
    assert float(standard_errors_apart(first, second).max()) > 5 * LIMIT


# ---- Plug-and-play


def test_proximal_gradient_descent_with_our_denoiser_ends_at_the_fixed_point_of_pnp_ista(
    deepinv, random_operator, draw
):
    A = random_operator(2, 3, 16, 16, dtype=torch.complex128)
    kspace = A.forward(draw(2, 16, 16, seed=3))
    network = seeded(lambda: priors.Denoiser(hidden_channels=4, num_layers=3)).double()

    def denoise(image: torch.Tensor) -> torch.Tensor:
        # Nine tenths of it, so that the iteration contracts and has one fixed point.
        return 0.9 * network(image)

    start = A.adjoint(kspace)
    solver = deepinv.optim.PGD(
        # With σ = 1 the gradient is Aᴴ(Ax − b).
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(denoiser=lambda channels, sigma: to_channels(denoise(to_complex(channels)))),
        stepsize=0.7,
        sigma_denoiser=0.1,
        max_iter=3000,
        early_stop=True,
        crit_conv="residual",
        thres_conv=1e-13,
    )
    with torch.no_grad():
        theirs = to_complex(solver(to_channels(kspace), multi_coil_mri(deepinv, A), init=to_channels(start)))
    assert solver.has_converged
    ours = proximal_iteration(A, kspace, denoise, step_size=0.7, init=start, tolerance=1e-13, max_iterations=3000)
    assert bool(ours.converged.all())
    # Both stop at 1e-13 of a contraction by 0.9 or so.
    assert relative_error(theirs, ours.image) < 1e-10
    # The denoiser takes part.
    assert relative_error(0.9 * ours.image, denoise(ours.image)) > 1e-3


# ---- Diffusion


def test_a_step_of_dps_goes_along_the_gradient_of_its_data_fidelity(deepinv, random_operator, draw):
    A = random_operator(1, 3, 16, 16, dtype=torch.complex64)
    kspace = A.forward(draw(1, 16, 16, seed=3, dtype=torch.complex64))
    network = seeded(lambda: priors.DiffusionDenoiser(channels=(4, 8), num_blocks=1, preconditioning="edm"))
    level, guidance = 0.7, 0.3
    # With one noise level the result is the denoised start, less ζ times the gradient.
    ours = diffusion_posterior_sampling(
        A, kspace, network, noise_levels=[level], guidance=guidance, generator=torch.Generator().manual_seed(4)
    ).images[0]
    start = level * complex_normal((1, 1, 16, 16), generator=torch.Generator().manual_seed(4))[0]
    fidelity = deepinv.sampling.DPSDataFidelity(
        denoiser=lambda channels, sigma: to_channels(network(to_complex(channels), sigma)), weight=guidance
    )
    gradient, denoised = fidelity.grad(
        to_channels(start), to_channels(kspace), multi_coil_mri(deepinv, A), level, get_model_outputs=True
    )
    assert relative_error(ours, to_complex(denoised - gradient)) < ROUNDING[torch.complex64]
    # The gradient takes part.
    assert relative_error(to_complex(denoised), ours) > 1e-2
