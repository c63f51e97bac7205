r"""The sampler against closed forms: where C is quadratic its stationary distribution is known, step bias included.

With curvature h of C in some direction the chain is x' = (1 − τh)x + … + ε√τ z, so its stationary variance per real
component is ε²/(h(2 − τh)) about the MAP, and ε²/2h is the target ∝ exp(−2C/ε²), reached for τ → 0 or with Metropolis
adjustment. Chains are independent of one another, so their last states are an independent sample, and standard errors
are exact. Seeds are fixed: a test that passes once always does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from scipy import stats

from direct_deepen.inference import Chains, LangevinStep, Samples, langevin, mm_map
from direct_deepen.physics import SenseOperator
from direct_deepen.priors import DifferentiableEnergy, QuadraticEnergy

NOISE_STD = 0.1

LIMIT = 3.0
"""Standard errors. Every statistic below is a sum of very many independent terms, so close to normal."""


@dataclass(frozen=True)
class GaussianPosterior:
    """A posterior of C(x) = ½‖Ax − b‖² + ½xᴴGx for one image, in the eigenbasis of its Hessian AᴴA + G."""

    A: SenseOperator
    kspace: torch.Tensor
    energy: DifferentiableEnergy
    mean: torch.Tensor
    curvature: torch.Tensor
    basis: torch.Tensor

    def stationary_variance(self, step_size: float) -> torch.Tensor:
        """Variance per real component of every direction, of the unadjusted chain."""
        return NOISE_STD**2 / (self.curvature * (2 - step_size * self.curvature))

    def target_variance(self) -> torch.Tensor:
        return self.stationary_variance(0.0)

    def whitened(self, images: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """Deviations from the MAP in units of the standard deviation; (sample, 1, h, w) → real (sample, 2·pixels)."""
        coefficients = (images.flatten(1) - self.mean) @ self.basis.conj()
        return torch.view_as_real(coefficients / variance.sqrt()).flatten(1)


@pytest.fixture
def posterior(random_operator, dense_normal, gaussian_energy, draw) -> Callable[..., GaussianPosterior]:
    """Undersampled multi-coil data and a Gaussian prior that couples all pixels, G with eigenvalues of 0.3 to 0.6."""

    def build(*size: int) -> GaussianPosterior:
        pixels = math.prod(size)
        A = random_operator(1, 3, *size, fourier_dimensions=len(size))
        kspace = A.forward(draw(1, *size, seed=3))
        vectors, _ = torch.linalg.qr(draw(pixels, pixels, seed=5))
        prior_curvature = torch.linspace(0.3, 0.6, pixels, dtype=torch.float64)
        precision = (vectors * prior_curvature) @ vectors.mH / (0.5 * NOISE_STD**2)
        energy = gaussian_energy(precision, NOISE_STD)
        curvature, basis = torch.linalg.eigh(dense_normal(A) + energy.hessian)
        mean = torch.linalg.solve(dense_normal(A) + energy.hessian, A.adjoint(kspace).flatten())
        return GaussianPosterior(A, kspace, energy, mean, curvature, basis)

    return build


def mean_square_deviation(deviations: torch.Tensor) -> float:
    """By how many standard errors the mean square differs from one: N·mean square is χ² with N degrees of freedom."""
    count = deviations.numel()
    return (float(deviations.square().mean()) - 1) / math.sqrt(2 / count)


def mean_deviation(deviations: torch.Tensor) -> float:
    """By how many standard errors the means of all components differ from zero: S·Σ mean² is χ²."""
    samples, components = deviations.shape
    return (samples * float(deviations.mean(dim=0).square().sum()) - components) / math.sqrt(2 * components)


def assert_standard_normal(deviations: torch.Tensor) -> None:
    """Means zero, variances one, no correlations: all together, and each by itself."""
    samples, components = deviations.shape
    assert abs(mean_deviation(deviations)) <= LIMIT
    assert abs(mean_square_deviation(deviations)) <= LIMIT
    # Each by itself: the levels of χ² that one of all components exceeds once in a thousand experiments (Bonferroni).
    level = 1e-3 / components
    low, high = stats.chi2.ppf([level / 2, 1 - level / 2], df=samples) / samples
    squares = deviations.square().mean(dim=0)
    assert low <= float(squares.min())
    assert float(squares.max()) <= high
    means = deviations.mean(dim=0).abs() * math.sqrt(samples)
    assert float(means.max()) <= stats.norm.isf(level / 2)
    # Correlations have standard error 1/√S and are nearly normal: six of them for the largest of some 10⁴.
    correlations = deviations.T @ deviations / samples - torch.diag(squares)
    assert float(correlations.abs().max()) * math.sqrt(samples) <= 6


# ---- Stationary distribution


def chains_of(
    truth: GaussianPosterior, chains: Chains, step: LangevinStep, init: str | torch.Tensor = "noise"
) -> Samples:
    return langevin(
        truth.A,
        truth.kspace,
        truth.energy,
        noise_std=NOISE_STD,
        generator=torch.Generator().manual_seed(0),
        init=init,
        chains=chains,
        step=step,
    )


def thousand_chains(truth: GaussianPosterior, num_steps: int, step: LangevinStep) -> Samples:
    """The last states of a thousand chains that begin at noise."""
    return chains_of(truth, Chains(1000, num_steps, max_images=1000), step)


@pytest.mark.parametrize(("size", "step_size"), [((8, 8), 1.0), ((8, 8), 0.25), ((3, 4, 5), 1.0)], ids=str)
def test_stationary_distribution_has_the_mean_of_the_posterior_and_the_variance_with_step_bias(
    posterior, size, step_size
):
    truth = posterior(*size)
    samples = thousand_chains(truth, round(30 / step_size), LangevinStep(step_size))
    # The start, some ten standard deviations away, is forgotten like (1 − τh)ⁿ, with τn = 30 and h ≥ 0.3 by e⁻⁹: a
    # thousandth of a standard deviation is left, and means are known to 1/√1000.
    deviations = truth.whitened(samples.images, truth.stationary_variance(step_size))
    assert_standard_normal(deviations)


@pytest.mark.parametrize("averaged_noise", [False, True])
def test_of_a_quadratic_cost_pairs_of_antithetic_chains_have_the_exact_mean_and_its_variance(posterior, averaged_noise):
    truth = posterior(6, 6)
    exact, chains = truth.mean.reshape(1, 6, 6), Chains(400, 60, max_images=400, antithetic=True)
    samples = chains_of(truth, chains, LangevinStep(0.5, averaged_noise=averaged_noise), exact)
    pairs = samples.images.unflatten(0, (-1, 2))
    # Noise of 0.1, which cancels up to rounding; that of two chains with noise of their own does not.
    torch.testing.assert_close(pairs.mean(dim=1), exact.expand_as(pairs[:, 0]), rtol=0, atol=1e-12)
    assert float((pairs[::2, 0] + pairs[1::2, 0] - 2 * exact).abs().mean()) > 0.01
    # Firsts, and seconds, are samples like any others.
    variance = truth.target_variance() if averaged_noise else truth.stationary_variance(0.5)
    for one in pairs.unbind(dim=1):
        assert_standard_normal(truth.whitened(one, variance))


@dataclass(frozen=True)
class OfConvolutions:
    """The same for a :class:`QuadraticEnergy` whose convolutions are far from the kinks of relu: x − ψ(x) = Jx + r.

    Matrices are real, over real and imaginary parts.
    """

    mean: torch.Tensor
    curvature: torch.Tensor
    basis: torch.Tensor

    @classmethod
    def of(cls, A: SenseOperator, kspace: torch.Tensor, energy: QuadraticEnergy) -> "OfConvolutions":
        size = A.sampling_mask.shape[2:]
        unit = torch.eye(2 * size.numel(), dtype=torch.float64)
        images = torch.view_as_complex(unit.reshape(-1, *size, 2))

        def real(each: torch.Tensor) -> torch.Tensor:
            return torch.view_as_real(each).flatten(1)

        with torch.no_grad():
            origin = real(-energy.denoise(torch.zeros(1, *size, dtype=torch.complex128)))
            jacobian = (real(images - energy.denoise(images)) - origin).T
        normal = torch.cat([real(A.normal(image[None])) for image in images]).T
        hessian = normal + energy.weight * jacobian.T @ jacobian
        right_hand_side = real(A.adjoint(kspace))[0] - energy.weight * jacobian.T @ origin[0]
        return cls(torch.linalg.solve(hessian, right_hand_side), *torch.linalg.eigh(hessian))

    def whitened(self, images: torch.Tensor, step_size: float) -> torch.Tensor:
        deviations = torch.view_as_real(images).flatten(1) - self.mean
        variance = NOISE_STD**2 / (self.curvature * (2 - step_size * self.curvature))
        return deviations @ self.basis / variance.sqrt()


def linear_energy(dimensions: int, border: str) -> QuadraticEnergy:
    """An energy whose features are all far above zero; its residual is near the image itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        energy = QuadraticEnergy(
            hidden_channels=4, num_layers=2, activation="relu", weight=0.5, border=border, dimensions=dimensions
        ).double()
    first, last = energy.residual[0], energy.residual[2]
    for layer in (first, last):
        layer.weight.detach().mul_(0.3)
        for channel in range(2):
            layer.weight.detach()[channel, channel, *dimensions * (1,)] += 1
    first.bias.detach().fill_(30.0)
    last.bias.detach().copy_(-30.0 * last.weight.detach().flatten(1).sum(dim=1))
    return energy


@pytest.mark.parametrize(("size", "border"), [((4, 5), "periodic"), ((2, 3, 4), "zeros")], ids=str)
def test_of_convolutions_that_are_linear_map_and_chains_have_the_closed_form(random_operator, draw, size, border):
    A, energy = random_operator(1, 2, *size, fourier_dimensions=len(size)), linear_energy(len(size), border)
    kspace = A.forward(draw(1, *size, seed=3))
    exact = OfConvolutions.of(A, kspace, energy)
    image = mm_map(A, kspace, energy, tolerance=1e-15, max_iterations=2000).image
    torch.testing.assert_close(torch.view_as_real(image).flatten(), exact.mean, rtol=0, atol=1e-4)
    step_size = 1 / float(exact.curvature.max())
    samples = langevin(
        A,
        kspace,
        energy,
        noise_std=NOISE_STD,
        generator=torch.Generator().manual_seed(0),
        init=image,
        # Begun at the mean, the variance lacks (1 − τh)²ⁿ of what it comes to.
        chains=Chains(1000, math.ceil(3 / (step_size * float(exact.curvature.min()))), max_images=1000),
        step=LangevinStep(step_size),
    )
    assert_standard_normal(exact.whitened(samples.images, step_size))


def test_step_bias_is_visible_at_this_number_of_samples(posterior):
    # What the tests here could miss: the target itself is dozens of standard errors away from what the chain with τ = ¼
    # gives.
    truth = posterior(8, 8)
    ratio = truth.stationary_variance(0.25) / truth.target_variance()
    standard_error = math.sqrt(2 / (1000 * 2 * 64))
    assert (float(ratio.mean()) - 1) / standard_error > 20


def test_half_the_step_with_noise_that_was_not_scaled_would_be_seen(posterior):
    # The same for a missing √τ: the variance would be 1/τ times larger.
    truth = posterior(8, 8)
    ratio = truth.stationary_variance(0.5) / 0.5 / truth.stationary_variance(0.5)
    assert (float(ratio.mean()) - 1) / math.sqrt(2 / (1000 * 2 * 64)) > 20


# ---- Metropolis adjustment

METROPOLIS_STEP = 0.4


def exact_draws(truth: GaussianPosterior, coefficients: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Images with the given variances about the MAP, from unit noise (sample, pixel)."""
    height, width = truth.kspace.shape[-2:]
    return (truth.mean + (coefficients * variance.sqrt()) @ truth.basis.T).reshape(-1, 1, height, width)


def run_metropolis_test(
    truth: GaussianPosterior, start: torch.Tensor, *, metropolis: bool, step_size: float | None, num_steps: int
) -> Samples:
    return langevin(
        truth.A,
        truth.kspace,
        truth.energy,
        noise_std=NOISE_STD,
        generator=torch.Generator().manual_seed(0),
        num_steps=num_steps,
        num_samples=start.shape[0],
        init=start,
        step_size=step_size,
        metropolis=metropolis,
        max_images=start.shape[0],
    )


@pytest.fixture
def small(posterior) -> GaussianPosterior:
    """Few pixels: the acceptance of steps of this size falls quickly with their number."""
    return posterior(4, 4)


@pytest.fixture
def biased_start(small, draw) -> torch.Tensor:
    """Draws of the stationary distribution of the unadjusted chain."""
    return exact_draws(small, draw(1000, 16, seed=7), small.stationary_variance(METROPOLIS_STEP))


def test_unadjusted_chains_visibly_miss_the_target(small, biased_start):
    samples = run_metropolis_test(small, biased_start, metropolis=False, step_size=METROPOLIS_STEP, num_steps=100)
    assert mean_square_deviation(small.whitened(samples.images, small.target_variance())) > 10
    assert_standard_normal(small.whitened(samples.images, small.stationary_variance(METROPOLIS_STEP)))
    assert samples.acceptance.tolist() == [[1.0]] * 1000


def test_metropolis_adjustment_removes_the_bias_of_the_same_step(small, biased_start):
    samples = run_metropolis_test(small, biased_start, metropolis=True, step_size=METROPOLIS_STEP, num_steps=100)
    assert 0.4 < float(samples.acceptance.mean()) < 0.8  # it does refuse, and is not stuck
    assert_standard_normal(small.whitened(samples.images, small.target_variance()))


@pytest.mark.parametrize("step_size", [0.3, 0.6])
def test_one_adjusted_step_leaves_the_target_as_it_is(small, draw, step_size):
    start = exact_draws(small, draw(4000, 16, seed=6), small.target_variance())
    samples = run_metropolis_test(small, start, metropolis=True, step_size=step_size, num_steps=1)
    assert 0.2 < float(samples.acceptance.mean()) < 0.8
    assert_standard_normal(small.whitened(samples.images, small.target_variance()))


def test_adapting_metropolis_chains_reach_the_target_at_the_acceptance_they_aim_at(small, biased_start):
    samples = run_metropolis_test(small, biased_start, metropolis=True, step_size=None, num_steps=200)
    # Aimed at 0.574. A hundred steps of stochastic approximation leave a scatter from chain to chain, which averages
    # out over 1000 of them (measured: 0.573).
    assert abs(float(samples.acceptance.mean()) - 0.574) <= 0.01
    # Every chain has a step of its own, adapted to its past and frozen for the second hundred steps, which forget it.
    assert_standard_normal(small.whitened(samples.images, small.target_variance()))


# ---- Preconditioning

PRECONDITIONER = 0.4


@dataclass(frozen=True)
class PreconditionedPosterior:
    """The same posterior in y = P^{-1/2}x: there the chain is the plain one, with Hessian P^{1/2}HP^{1/2}."""

    plain: GaussianPosterior
    root: torch.Tensor
    curvature: torch.Tensor
    basis: torch.Tensor

    def whitened(self, images: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        deviations = torch.linalg.solve(self.root, (images.flatten(1) - self.plain.mean).T).T
        return torch.view_as_real(deviations @ self.basis.conj() / variance.sqrt()).flatten(1)

    def stationary_variance(self, step_size: float) -> torch.Tensor:
        return NOISE_STD**2 / (self.curvature * (2 - step_size * self.curvature))

    def draws(self, coefficients: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        height, width = self.plain.kspace.shape[-2:]
        deviations = (coefficients * variance.sqrt()) @ self.basis.T @ self.root.T
        return (self.plain.mean + deviations).reshape(-1, 1, height, width)


def preconditioned(truth: GaussianPosterior, dense_normal) -> PreconditionedPosterior:
    values, vectors = torch.linalg.eigh(dense_normal(truth.A))
    root = (vectors * (values + PRECONDITIONER) ** -0.5) @ vectors.mH
    hessian = dense_normal(truth.A) + truth.energy.hessian
    curvature, basis = torch.linalg.eigh(root @ hessian @ root)
    return PreconditionedPosterior(truth, root, curvature, basis)


@pytest.mark.parametrize(("size", "step_size"), [((8, 8), 1.0), ((8, 8), 0.5), ((3, 4, 5), 1.0)], ids=str)
def test_preconditioned_chains_have_the_step_bias_of_their_metric(posterior, dense_normal, size, step_size):
    truth = posterior(*size)
    inner = preconditioned(truth, dense_normal)
    # Eigenvalues from 0.75 to 1.2: the start is forgotten in 0.4 of the steps that the plain chain takes.
    samples = thousand_chains(truth, round(12 / step_size), LangevinStep(step_size, preconditioner=PRECONDITIONER))
    assert_standard_normal(inner.whitened(samples.images, inner.stationary_variance(step_size)))
    # The plain chain's law is another one, and so is the target: both would be seen.
    for variance in (inner.stationary_variance(0.0), 1.1 * inner.stationary_variance(step_size)):
        assert abs(mean_square_deviation(inner.whitened(samples.images, variance))) > 10


@pytest.mark.parametrize(
    ("metric", "step_size", "num_steps", "momentum"),
    [
        (None, 1.0, 30, 0.0),
        (None, None, 60, 0.0),
        (PRECONDITIONER, 1.0, 12, 0.0),
        (None, 1.0, 40, 0.6),
        (None, None, 40, 0.6),
        (PRECONDITIONER, 1.0, 40, 0.6),
        (PRECONDITIONER, 1.5, 60, 0.8),
    ],
    ids=["paper", "adapted", "metric", "momentum", "momentum, adapted", "momentum, metric", "more momentum, metric"],
)
def test_with_averaged_noise_the_step_has_no_bias(posterior, dense_normal, metric, step_size, num_steps, momentum):
    # The plain chain with τ = 1 has up to three times this variance (above).
    truth = posterior(8, 8)
    inner = truth if metric is None else preconditioned(truth, dense_normal)
    step = LangevinStep(step_size, preconditioner=metric, averaged_noise=True, momentum=momentum)
    samples = thousand_chains(truth, num_steps, step)
    assert_standard_normal(inner.whitened(samples.images, inner.stationary_variance(0.0)))


@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.9])
def test_with_momentum_the_mean_of_an_antithetic_pair_is_a_damped_oscillator(posterior, draw, momentum):
    truth, step_size, num_steps = posterior(6, 6), 0.5, 7
    start = truth.mean.reshape(1, 6, 6) + draw(1, 6, 6, seed=8)
    chains = Chains(2, num_steps, keep=num_steps, antithetic=True)
    samples = chains_of(truth, chains, LangevinStep(step_size, averaged_noise=True, momentum=momentum), start)
    # In every direction, of curvature h: the noise of a pair cancels.
    position = (start.flatten() - truth.mean) @ truth.basis.conj()
    velocity, duration = torch.zeros_like(position), (2 * step_size) ** 0.5
    for mean in samples.by_chain().mean(dim=0):
        pushed = velocity - duration * truth.curvature * position
        velocity = momentum * pushed
        position = position + duration / 2 * (pushed + velocity)
        found = (mean.flatten() - truth.mean) @ truth.basis.conj()
        torch.testing.assert_close(found, position, rtol=0, atol=1e-12)


def test_a_metric_of_the_curvature_is_found_for_every_image(random_operator, gaussian_energy, draw):
    A = random_operator(2, 3)
    kspace, start = A.forward(draw(2, 8, 8, seed=3)), draw(2, 8, 8, seed=4)
    # ∇E is 0.04 x: the curvature of every direction, whatever the noise. The factor is one and a half.
    energy = gaussian_energy(0.08 * torch.eye(64, dtype=torch.complex128) / NOISE_STD**2, NOISE_STD)

    def chains(weight: float | str, images: list[int]) -> Samples:
        return langevin(
            A.select(torch.tensor(images)),
            kspace[images],
            energy,
            noise_std=NOISE_STD,
            generator=torch.Generator().manual_seed(1),
            init=start[images],
            chains=Chains(3, 4),
            step=LangevinStep(0.5, preconditioner=weight),
        )

    found, told = (chains(weight, [0, 1]) for weight in ("curvature", 0.06))
    torch.testing.assert_close(found.images, told.images, rtol=1e-4, atol=1e-6)
    assert found.gradient_evaluations == told.gradient_evaluations + 2 * 2
    # An image by itself has the metric that it has in a batch.
    alone = chains("curvature", [0])
    torch.testing.assert_close(alone.images[:, 0], found.images[:, 0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("step_size", [0.3, 0.6])
def test_one_adjusted_preconditioned_step_leaves_the_target_as_it_is(small, dense_normal, draw, step_size):
    inner = preconditioned(small, dense_normal)
    target = inner.stationary_variance(0.0)
    start = inner.draws(draw(4000, 16, seed=6), target)
    samples = langevin(
        small.A,
        small.kspace,
        small.energy,
        noise_std=NOISE_STD,
        generator=torch.Generator().manual_seed(0),
        num_steps=1,
        num_samples=4000,
        init=start,
        step_size=step_size,
        metropolis=True,
        preconditioner=PRECONDITIONER,
        max_images=4000,
    )
    assert 0.2 < float(samples.acceptance.mean()) < 0.95
    assert_standard_normal(inner.whitened(samples.images, target))


def test_where_nothing_is_sampled_a_preconditioner_is_a_longer_step(gaussian_energy, inpainting_operator, draw):
    # P = I/μ: the chain with τ is the plain one with τ/μ.
    energy = gaussian_energy(torch.diag(torch.linspace(1, 3, 16, dtype=torch.float64)), 0.5)
    arguments = {"noise_std": 0.5, "num_steps": 7, "init": draw(1, 4, 4, seed=2)}
    A, data = inpainting_operator(torch.zeros(1, 4, 4, dtype=torch.float64)), draw(1, 4, 4)
    generator = torch.Generator().manual_seed(5)
    chains = langevin(
        A, data, energy, generator=generator, num_samples=1000, step_size=0.2, preconditioner=0.5, max_images=1000,
        **arguments,
    ).images  # fmt: skip
    plain = langevin(
        A, data, energy, generator=generator, num_samples=1000, step_size=0.4, max_images=1000, **arguments
    ).images
    for moment in (lambda x: x, lambda x: (x - x.mean(dim=0)).abs().square()):
        first, second = moment(torch.view_as_real(chains)), moment(torch.view_as_real(plain))
        error = ((first.var(dim=0) + second.var(dim=0)) / 1000).sqrt()
        # The largest of 32: Bonferroni at 1e-3.
        assert float(((first.mean(dim=0) - second.mean(dim=0)).abs() / error).max()) < 4.2


# ---- Temperature


@pytest.mark.parametrize(
    ("step_size", "metropolis"), [(0.05, False), (0.5, True), (1.0, True)], ids=["small step", "MALA ½", "MALA 1"]
)
@pytest.mark.parametrize("noise_std", [0.1, 1.0])
def test_temperature(inpainting_operator, gaussian_energy, step_size, metropolis, noise_std):
    # One pixel, A = 1, E = (ε²/4)q|x|²: the posterior ∝ exp(−2C/ε²) is that of a Gaussian prior of precision q and
    # measurement noise η = ε/√2, so its precision is q + 2/ε² and its mean (2/ε²)b over that. Every image of the batch
    # is one more chain, and so is every pixel where none waits for the others to be accepted. 2000 of them tell the
    # variance to 2.2 %; a lost √τ, or ε for η, would make it twice as large.
    precision, data, chains = 1.0, 0.8 - 0.5j, 2000
    pixels = 1 if metropolis else 100
    energy = gaussian_energy(precision * torch.eye(pixels, dtype=torch.float64), noise_std)
    samples = langevin(
        inpainting_operator(torch.ones(chains // pixels, 1, pixels, dtype=torch.float64)),
        torch.full((chains // pixels, 1, pixels), data, dtype=torch.complex128),
        energy,
        noise_std=noise_std,
        generator=torch.Generator().manual_seed(4),
        num_steps=round(12 / step_size) if not metropolis else 30,
        step_size=step_size,
        metropolis=metropolis,
    )
    posterior_precision = precision + 2 / noise_std**2
    mean = 2 / noise_std**2 * data / posterior_precision
    variance = 1 / posterior_precision
    if not metropolis:
        # The known bias of the step: 1/(1 − τh/2) with h the curvature of C.
        variance /= 1 - step_size * (1 + noise_std**2 * precision / 2) / 2
    deviations = torch.view_as_real(samples.images.flatten() - mean).reshape(chains, 2) / math.sqrt(variance)
    assert_standard_normal(deviations)
