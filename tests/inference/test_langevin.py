"""Langevin sampling: seeds, bookkeeping, steps, starts and errors."""

from collections.abc import Callable

import pytest
import torch

from direct_deepen.errors import DivergenceError
from direct_deepen.inference import Chains, LangevinStep, Samples, langevin
from direct_deepen.inference.cost import cost_terms
from direct_deepen.physics import SenseOperator, sense
from direct_deepen.priors import DifferentiableEnergy

NOISE_STD = 0.05
STILL = 1e-12
"""A step so small that chains stay where they start."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def problem(random_operator, draw) -> tuple[SenseOperator, torch.Tensor]:
    A = random_operator(2, 3)
    return A, A.forward(draw(2, 8, 8, seed=3))


@pytest.fixture
def energy(gaussian_energy) -> DifferentiableEnergy:
    """E = 0.2 Σ|x|², of curvature 0.4."""
    return gaussian_energy(torch.eye(64, dtype=torch.float64) * 0.4 / (0.5 * NOISE_STD**2), NOISE_STD)


@pytest.fixture
def sample(problem, energy) -> Callable[..., Samples]:
    """``sample(**options)``: three chains of twenty steps on the problem above, unless said otherwise."""

    def run(**options) -> Samples:
        defaults = {"noise_std": NOISE_STD, "generator": generator(), "num_steps": 20, "num_samples": 3}
        return langevin(*problem, energy, **defaults | options)

    return run


# ---- Seeds


@pytest.mark.parametrize(
    ("seed", "init", "metropolis"),
    [(0, "noise", False), (0, "sense", True), (1, "sense", False), (2**40, "noise", True)],
)
@pytest.mark.usefixtures("global_generators_untouched")
def test_a_seed_gives_the_same_samples_bit_for_bit_and_zero_is_a_seed(sample, seed, init, metropolis):
    options = {"init": init, "metropolis": metropolis, "keep": 2}
    first, second = (sample(generator=generator(seed), **options) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.cost_trace, second.cost_trace)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)  # what the global generator is at must not matter
        assert torch.equal(sample(generator=generator(seed), **options).images, first.images)
    assert not torch.equal(sample(generator=generator(seed + 1), **options).images, first.images)


def test_a_generator_goes_on_where_it_was(sample):
    shared = generator()
    assert not torch.equal(sample(generator=shared).images, sample(generator=shared).images)


def test_chains_and_images_have_noise_of_their_own(problem, gaussian_energy):
    A, kspace = problem
    same = SenseOperator(A.sensitivity_map[[0, 0]], A.sampling_mask[[0, 0]])
    flat = gaussian_energy(torch.zeros(64, 64, dtype=torch.float64), NOISE_STD)
    images = langevin(
        same, kspace[[0, 0]], flat, noise_std=NOISE_STD, generator=generator(), num_samples=3, num_steps=5, max_images=2
    ).images.flatten(0, 1)
    distances = torch.cdist(torch.view_as_real(images).flatten(1), torch.view_as_real(images).flatten(1))
    assert float((distances + torch.eye(6)).min()) > 0.1


# ---- Bookkeeping


@pytest.mark.parametrize(
    ("num_steps", "keep", "burn_in"),
    [(20, 1, None), (20, 4, None), (20, 20, None), (20, 15, None), (20, 4, 16), (20, 2, 0), (1, 1, None), (7, 3, 2)],
)
def test_states_are_kept_at_equal_distances_after_burn_in_the_last_one_among_them(sample, num_steps, keep, burn_in):
    samples = sample(num_steps=num_steps, keep=keep, burn_in=burn_in)
    assert samples.burn_in == (min(num_steps // 2, num_steps - keep) if burn_in is None else burn_in)
    steps = samples.step[:keep]
    assert steps[-1] == num_steps
    distances = steps.diff(prepend=torch.tensor([samples.burn_in]))
    assert int(distances.min()) >= 1
    assert int(distances.max() - distances.min()) <= 1  # as equal as integers can be
    assert samples.step.tolist() == steps.tolist() * 3
    assert samples.chain.tolist() == [chain for chain in range(3) for _ in range(keep)]
    assert samples.by_chain().shape[:2] == (3, keep)
    assert samples.images.shape == (3 * keep, 2, 8, 8)
    assert samples.cost_trace.shape == samples.norm_trace.shape == (num_steps, 3, 2)
    assert samples.step_size.shape == samples.acceptance.shape == samples.curvature.shape == (3, 2)


@pytest.mark.parametrize("max_images", [1, 4, 32])
@pytest.mark.parametrize("metropolis", [False, True])
def test_traces_are_those_of_the_images_that_were_kept(problem, energy, sample, metropolis, max_images):
    A, kspace = problem
    samples = sample(num_steps=10, keep=10, metropolis=metropolis, max_images=max_images)
    for image, chain, step in zip(samples.images, samples.chain, samples.step, strict=True):
        cost = cost_terms(A, kspace, energy, image).cost
        # The sampler expands the square: rounding only, in double precision.
        torch.testing.assert_close(samples.cost_trace[step - 1, chain], cost, rtol=1e-10, atol=0)
        norms = torch.linalg.vector_norm(image, dim=(1, 2))
        torch.testing.assert_close(samples.norm_trace[step - 1, chain], norms, rtol=1e-12, atol=0)


def test_by_chain_orders_samples_by_chain_and_step(sample):
    samples = sample(keep=4)
    by_chain = samples.by_chain()
    assert by_chain.shape == (3, 4, 2, 8, 8)
    for index, (chain, step) in enumerate(zip(samples.chain, samples.step, strict=True)):
        position = samples.step[:4].tolist().index(step)
        assert torch.equal(by_chain[chain, position], samples.images[index])


def test_keeping_more_does_not_change_the_chains(sample):
    few, many = sample(keep=1, burn_in=10), sample(keep=10, burn_in=10)
    assert torch.equal(few.images, many.by_chain()[:, -1])
    assert torch.equal(few.cost_trace, many.cost_trace)


@pytest.mark.parametrize("max_images", [1, 2, 4, 7, 32])
def test_groups_of_chains_only_limit_what_the_network_sees_at_once(sample, energy, max_images):
    samples = sample(num_samples=7, keep=2, max_images=max_images, step_size=0.5)
    assert samples.images.shape == (14, 2, 8, 8)
    assert samples.chain.tolist() == [chain for chain in range(7) for _ in range(2)]
    assert samples.cost_trace.shape == (20, 7, 2)
    assert max(energy.batches) <= max(max_images, 2)  # a batch of two images is not divided
    assert len({image.sum().item() for image in samples.images}) == 14


@pytest.mark.parametrize("step_size", [None, 0.5])
@pytest.mark.parametrize("max_images", [2, 32])
def test_gradient_evaluations_are_those_that_were_done(sample, energy, step_size, max_images):
    samples = sample(num_samples=5, step_size=step_size, max_images=max_images)
    assert samples.gradient_evaluations == sum(energy.batches)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_precision_is_that_of_the_data(problem, energy_type_case, dtype):
    A, kspace = problem
    trained = energy_type_case.build(8, 8, dtype=kspace.to(dtype).real.dtype)
    single = SenseOperator(A.sensitivity_map.to(dtype), A.sampling_mask)
    samples = langevin(
        single, kspace.to(dtype), trained, noise_std=0.01, generator=generator(), num_steps=4, num_samples=2
    )
    assert samples.images.dtype == dtype
    assert samples.cost_trace.dtype == torch.float64
    assert bool(torch.isfinite(samples.norm_trace).all())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in trained.parameters())
    assert not samples.images.requires_grad


def test_data_are_left_alone(problem, sample):
    copy = problem[1].clone()
    sample()
    assert torch.equal(problem[1], copy)


# ---- Operators


def test_a_plain_operator_gives_the_same(problem, energy, plain_operator, sample):
    A, kspace = problem
    samples = langevin(
        plain_operator(A),
        kspace,
        energy,
        noise_std=NOISE_STD,
        generator=generator(),
        num_steps=20,
        num_samples=3,
        step_size=0.5,
    )
    # The same transforms in batches of another shape: rounding, which contracting chains do not amplify.
    torch.testing.assert_close(samples.images, sample(step_size=0.5).images, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("ones", [True, False], ids=["A = I", "A = mask"])
def test_inpainting_chains_follow_the_recursion(inpainting_operator, gaussian_energy, draw, ones):
    # The first step by hand. With A = I this operator returns its argument, which nothing may then change.
    mask = torch.ones(2, 4, 4, dtype=torch.float64)
    if not ones:
        mask[:, ::2] = 0
    data, start = mask * draw(2, 4, 4, seed=1), draw(2, 4, 4, seed=2)
    copies = data.clone(), start.clone()
    energy = gaussian_energy(torch.eye(16, dtype=torch.float64), noise_std=1.0)
    tiny = 1e-9
    samples = langevin(
        inpainting_operator(mask),
        data,
        energy,
        noise_std=tiny,
        generator=generator(),
        num_steps=1,
        num_samples=2,
        init=start,
        step_size=0.25,
    )
    gradient = mask * (mask * start - data) + 0.5 * start
    expected = (start - 0.25 * gradient).expand(2, 2, 4, 4)
    # Noise of 1e-9: ten standard deviations.
    torch.testing.assert_close(samples.images, expected, rtol=0, atol=1e-8)
    assert torch.equal(data, copies[0])
    assert torch.equal(start, copies[1])


# ---- Steps


def test_a_fixed_step_is_used_as_it_is(sample):
    samples = sample(step_size=0.3)
    assert samples.step_size.tolist() == [[0.3] * 2] * 3
    assert bool(samples.curvature.isnan().all())


@pytest.mark.parametrize("curvature", [0.05, 0.4, 3.0])
def test_the_adapted_step_follows_from_the_curvature(problem, gaussian_energy, curvature):
    noise_free = gaussian_energy(torch.eye(64, dtype=torch.float64) * curvature / 0.5, noise_std=1.0)
    samples = langevin(*problem, noise_free, noise_std=NOISE_STD, generator=generator(), num_steps=20, num_samples=3)
    # All directions curve alike, so every difference quotient is exact; normalised maps have ‖A‖² = 1.
    exact = torch.full((3, 2), curvature, dtype=torch.float64)
    torch.testing.assert_close(samples.curvature, exact, rtol=1e-9, atol=0)
    torch.testing.assert_close(samples.step_size, (1.6 / (1 + 2 * exact)).clamp(max=1.0), rtol=1e-9, atol=0)


def test_the_adapted_step_is_at_most_one_and_stable_for_every_energy(problem, energy_case):
    trained = energy_case.build(8, 8)
    samples = langevin(
        *problem, trained, noise_std=NOISE_STD, generator=generator(), num_steps=20, num_samples=3, init="sense"
    )
    assert bool((samples.step_size <= 1).all())
    assert bool((samples.step_size <= 1.6 / (1 + 2 * samples.curvature) * (1 + 1e-12)).all())  # rounding
    assert bool((samples.step_size > 0).all())


class Switching:
    """E = ½w|x|² with a curvature w that changes after a number of evaluations."""

    def __init__(self, before: float, after: float, evaluations: int) -> None:
        self.curvatures = [before] * evaluations + [after] * 1000
        self.evaluations = 0

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        curvature = self.curvatures[self.evaluations]
        self.evaluations += 1
        return 0.5 * curvature * image.abs().square().sum(dim=(1, 2)), curvature * image


def test_the_step_is_frozen_after_burn_in(inpainting_operator, draw):
    # Without noise to speak of, and with A = I and b = 0, a step multiplies x by 1 − τ(1 + w): so norms show the step
    # that was really taken. Two evaluations come before the first step.
    burn_in, num_steps = 6, 12
    energy = Switching(before=1.0, after=2.0, evaluations=2 + burn_in)
    samples = langevin(
        inpainting_operator(torch.ones(1, 4, 4, dtype=torch.float64)),
        torch.zeros(1, 4, 4, dtype=torch.complex128),
        energy,
        noise_std=1e-12,
        generator=generator(),
        num_steps=num_steps,
        init=1e6 * draw(1, 4, 4),
        burn_in=burn_in,
    )
    step = 1.6 / (1 + 2 * 1.0)
    assert samples.curvature.item() == pytest.approx(1.0, rel=1e-6)  # what came later was not looked at
    assert samples.step_size.item() == pytest.approx(step, rel=1e-6)
    norms = samples.norm_trace.flatten()
    ratios = norms[burn_in + 1 :] / norms[burn_in:-1]
    # The last step of burn-in is the first one evaluated after it; from then on w = 2 and τ is as it was.
    torch.testing.assert_close(ratios, torch.full_like(ratios, abs(1 - step * 3)), rtol=1e-5, atol=0)


def test_the_step_adapts_to_the_largest_curvature_of_burn_in(inpainting_operator, draw):
    energy = Switching(before=3.0, after=0.5, evaluations=4)
    samples = langevin(
        inpainting_operator(torch.ones(1, 4, 4, dtype=torch.float64)),
        torch.zeros(1, 4, 4, dtype=torch.complex128),
        energy,
        noise_std=1e-3,
        generator=generator(),
        num_steps=20,
        init=draw(1, 4, 4),
    )
    assert samples.curvature.item() >= 3.0 * (1 - 1e-9)
    assert samples.step_size.item() == pytest.approx(1.6 / (1 + 2 * samples.curvature.item()), rel=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metropolis_refuses_what_is_no_number_and_goes_on(problem, energy, value):
    # The first two evaluations are for the start, so the sixth is for the proposal of the fourth step, in burn-in.
    class Hole:
        evaluations = 0

        def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.evaluations += 1
            energy_there, gradient = energy.value_and_grad(image)
            return (energy_there + value, gradient * value) if self.evaluations == 6 else (energy_there, gradient)

    samples = langevin(
        *problem,
        Hole(),
        noise_std=NOISE_STD,
        generator=generator(),
        num_steps=100,
        num_samples=8,
        init=sense(*problem),
        metropolis=True,
    )
    assert torch.equal(samples.cost_trace[3], samples.cost_trace[2])
    assert bool(torch.isfinite(samples.cost_trace).all())
    assert bool((samples.step_size > 0.01).all())
    assert float(samples.acceptance.min()) > 0.1


# ---- Starts


def starts(sample: Callable[..., Samples], init: str | torch.Tensor, num_samples: int) -> torch.Tensor:
    return sample(init=init, num_samples=num_samples, num_steps=1, step_size=STILL).images


@pytest.mark.parametrize(("options", "expected"), [({}, 0.1), ({"init_std": 2.0}, 2.0)])
def test_noise_starts_have_the_stated_standard_deviation(sample, options, expected):
    images = sample(init="noise", num_samples=200, num_steps=1, step_size=STILL, **options).images
    components = torch.view_as_real(images).flatten() / expected
    count = components.numel()
    assert abs(float(components.mean())) <= 3 / count**0.5  # 3 standard errors
    assert abs(float(components.std()) - 1) <= 3 / (2 * count) ** 0.5


def test_sense_starts_are_sense_plus_noise_of_the_level_of_the_target(problem, sample):
    components = torch.view_as_real(starts(sample, "sense", 200) - sense(*problem)).flatten() / NOISE_STD
    count = components.numel()
    assert abs(float(components.mean())) <= 3 / count**0.5  # 3 standard errors
    assert abs(float(components.std()) - 1) <= 3 / (2 * count) ** 0.5


@pytest.mark.parametrize("shape", [(2, 8, 8), (5, 2, 8, 8)], ids=["shared", "one a chain"])
def test_given_starts_are_used_as_they_are(sample, draw, shape):
    start = draw(*shape, seed=8)
    copy = start.clone()
    images = starts(sample, start, 5)
    # The one step of 1e-12 adds noise of 1e-6 · ε.
    torch.testing.assert_close(images, start.expand(5, 2, 8, 8), rtol=0, atol=10 * STILL**0.5 * NOISE_STD)
    assert torch.equal(start, copy)


def test_a_conjugate_view_is_a_start_like_any_other(sample, draw):
    start = draw(2, 8, 8, seed=8)
    expected = sample(init=start.conj().resolve_conj()).images
    assert torch.equal(sample(init=start.conj()).images, expected)


# ---- Errors


def test_a_step_that_diverges_is_an_error_with_step_norms_and_step_sizes(sample, one_line_error):
    with one_line_error("langevin", "[0, 0]", "norms [inf", "at step ", "step sizes [10.0", error=DivergenceError):
        sample(step_size=10.0, num_steps=400)


def test_the_message_of_many_diverged_chains_stays_short(sample):
    with pytest.raises(DivergenceError) as caught:
        sample(step_size=100.0, num_steps=400, num_samples=16)
    assert "32 of 32 chains" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_message_counts_chains_over_all_groups(sample, draw):
    start = torch.zeros(5, 2, 8, 8, dtype=torch.complex128)
    start[3, 1, 0, 0] = float("inf")
    with pytest.raises(DivergenceError, match=r"1 of 2 chains diverged; \[chain, image\] \[\[3, 1\]\]"):
        sample(init=start, num_samples=5, max_images=2, step_size=0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise_std": 0.0}, ["noise_std is 0.0"]),
        ({"noise_std": float("nan")}, ["noise_std is nan"]),
        ({"noise_std": float("inf")}, ["noise_std is inf"]),
        ({"num_steps": 0}, ["num_steps is 0"]),
        ({"num_samples": 0}, ["num_samples is 0"]),
        ({"keep": 0}, ["keep is 0", "num_steps = 20"]),
        ({"keep": 21}, ["keep is 21", "num_steps = 20"]),
        ({"max_images": 0}, ["max_images is 0"]),
        ({"step_size": 0.0}, ["step_size is 0.0"]),
        ({"step_size": -1.0}, ["step_size is -1.0"]),
        ({"burn_in": -1}, ["burn_in is -1"]),
        ({"burn_in": 17, "keep": 4}, ["burn_in is 17", "num_steps - keep = 16"]),
        ({"init_std": 0.0}, ["init_std is 0.0"]),
        ({"preconditioner": 0.0}, ["preconditioner is 0.0", "> 0", "curvature"]),
        ({"preconditioner": "data"}, ["preconditioner is 'data'", "> 0", "curvature"]),
        ({"metropolis": True, "averaged_noise": True}, ["averaged_noise is True", "metropolis"]),
        ({"momentum": 0.5}, ["momentum is 0.5", "averaged_noise", "0"]),
        ({"momentum": 1.0, "averaged_noise": True}, ["momentum is 1.0", "< 1"]),
        ({"init": "zeros"}, ["init is 'zeros'", "noise", "sense"]),
        ({"init": torch.zeros(3, 8, 8, dtype=torch.complex128)}, ["init", "(3, 8, 8)", "(2, 8, 8)", "(3, 2, 8, 8)"]),
    ],
    ids=lambda value: None,
)
def test_bad_arguments_are_refused_in_one_line(sample, one_line_error, options, words):
    with one_line_error(*words):
        sample(**options)


def test_data_that_are_not_finite_are_refused_naming_the_images(problem, sample, one_line_error):
    problem[1][1, 0, 2, 2] = float("nan")
    with one_line_error("masked_kspace", "[1]"):
        sample()


def test_groups_of_options_say_what_the_old_keywords_do(sample, problem, energy):
    options = {"num_samples": 3, "num_steps": 7, "keep": 2, "burn_in": 1, "max_images": 4}
    expected = sample(**options, step_size=0.3, metropolis=True, preconditioner=0.5)
    groups = {"chains": Chains(3, 7, keep=2, burn_in=1, max_images=4), "step": LangevinStep(0.3, True, 0.5)}
    samples = langevin(*problem, energy, noise_std=NOISE_STD, generator=generator(), **groups)
    assert torch.equal(samples.images, expected.images)
    assert torch.equal(samples.cost_trace, expected.cost_trace)


@pytest.mark.parametrize("max_images", [1, 4, 32])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_with_averaged_noise_neither_groups_nor_other_chains_change_a_chain(sample, max_images, momentum):
    few = sample(num_samples=2, averaged_noise=True, momentum=momentum)
    many = sample(num_samples=5, keep=3, averaged_noise=True, momentum=momentum, max_images=max_images)
    # Only sums round otherwise in batches of another shape.
    torch.testing.assert_close(many.by_chain()[:2, -1], few.by_chain()[:, -1], rtol=1e-10, atol=1e-10)
    # Another chain than that of noise of its own, at as many gradients.
    other = sample(num_samples=2)
    assert not torch.allclose(other.images, few.images)
    assert other.gradient_evaluations == few.gradient_evaluations


@pytest.mark.parametrize("max_images", [1, 4, 32])
def test_of_antithetic_chains_the_first_are_what_they_are_by_themselves_and_the_second_of_other_noise(
    sample, max_images
):
    plain, pairs = sample(num_samples=5), sample(num_samples=5, antithetic=True, max_images=max_images)
    chains, own = pairs.by_chain()[:, -1], plain.by_chain()[:, -1]
    # Only sums round otherwise in batches of another shape.
    torch.testing.assert_close(chains[::2], own[::2], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(chains[1::2], own[1::2])
    assert not torch.allclose(chains[1::2], chains[:-1:2])


def test_a_group_and_its_old_keywords_together_are_refused(sample, one_line_error):
    with one_line_error("num_steps", "chains", "Chains"):
        sample(chains=Chains())
    with one_line_error("step_size", "step", "LangevinStep"):
        sample(step=LangevinStep(), step_size=0.1)
    with pytest.raises(TypeError, match="stepsize"):
        sample(stepsize=0.1)
