"""Laws that hold for every shape and scale, on examples that hypothesis draws, the same ones every time."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from direct_deepen import SenseOperator, intensity_scale, langevin, mm_map
from direct_deepen.engines.reconstruction import reconstruct
from direct_deepen.inference import Langevin
from direct_deepen.parts import SharedSettings
from direct_deepen.physics import complex_normal, normalize_sensitivity_map
from direct_deepen.physics.problem import Problem
from direct_deepen.priors import QuadraticEnergy

pytestmark = pytest.mark.filterwarnings(
    "error",
    # Garbage of other tests of this process may be collected in these.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

examples = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.differing_executors],
)

SEEDS = st.integers(0, 2**20)
POWERS = st.integers(-80, 80).map(lambda exponent: 2.0**exponent)
"""Units that cost no digit, far beyond those whose squares a float can hold."""


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return complex_normal(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@st.composite
def operators(draw_value: st.DrawFn, *, least: int = 1, dtype: torch.dtype = torch.complex128) -> SenseOperator:
    """SENSE operators of any batch, coils and size, with random maps and masks that sample the centre."""
    batch, coils = draw_value(st.integers(1, 2)), draw_value(st.integers(1, 4))
    height, width = draw_value(st.integers(least, 13)), draw_value(st.integers(least, 13))
    seed = draw_value(SEEDS)
    maps = normalize_sensitivity_map(draw(batch, coils, height, width, seed=seed, dtype=dtype))
    sampled = draw_value(st.sampled_from([0.2, 0.5, 1.0]))
    mask = torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(seed)) < sampled
    mask[:, :, height // 2, width // 2] = True
    return SenseOperator(maps, mask)


def data_of(A: SenseOperator, seed: int) -> torch.Tensor:
    """Data of a random image, which the centre of k-space has a share in, with noise."""
    batch, _, height, width = A.sensitivity_map.shape
    dtype = A.sensitivity_map.dtype
    image = draw(batch, height, width, seed=seed, dtype=dtype) + 1
    noise = draw(*A.sensitivity_map.shape, seed=seed + 1, dtype=dtype)
    return A.forward(image) + 0.01 * noise * A.sampling_mask


def energy_of(seed: int, dtype: torch.dtype = torch.float64) -> QuadraticEnergy:
    """An untrained energy, whose weights are three times those it begins with: strong enough to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        energy = QuadraticEnergy(hidden_channels=2, num_layers=2, activation="elu")
    for parameter in energy.parameters():
        parameter.detach().mul_(3.0)
    return energy.to(dtype)


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.conj() * b).sum()


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


# ---- The operator


@examples
@given(A=operators(), seed=SEEDS)
def test_forward_and_adjoint_are_adjoint_and_normal_is_one_after_the_other(A, seed):
    batch, coils, height, width = A.sensitivity_map.shape
    image, kspace = draw(batch, height, width, seed=seed), draw(batch, coils, height, width, seed=seed + 1)
    forward = A.forward(image)
    # Of sums of up to 1400 products in double precision.
    assert abs(inner(forward, kspace) - inner(image, A.adjoint(kspace))) <= 1e-12 * image.norm() * kspace.norm()
    assert_close(A.normal(image), A.adjoint(forward), 1e-13)
    assert_close(A.forward(forward.new_zeros(batch, height, width)), torch.zeros_like(forward), 1e-300)


@examples
@given(A=operators(), seed=SEEDS)
def test_the_operator_takes_no_energy_that_is_not_there(A, seed):
    image = draw(*A.sensitivity_map[:, 0].shape, seed=seed)
    assert A.forward(image).norm() <= float(A.norm_squared_bound.max()) ** 0.5 * image.norm() * (1 + 1e-12)


# ---- Units


def problem_of(A: SenseOperator, masked_kspace: torch.Tensor) -> Problem:
    scale = intensity_scale(A, masked_kspace)
    return Problem(A, masked_kspace / scale[:, None, None, None], scale, [("a.h5", i) for i in range(len(scale))])


@examples
@given(A=operators(dtype=torch.complex64), seed=SEEDS, unit=POWERS)
def test_the_scale_and_the_map_image_carry_the_unit_of_the_data_to_the_last_digit(A, seed, unit):
    energy, data = energy_of(seed, torch.float32), data_of(A, seed)
    found, expected = problem_of(A, unit * data), problem_of(A, data)
    assert torch.equal(found.scale, unit * expected.scale)
    assert torch.equal(found.masked_kspace, expected.masked_kspace)

    def image(problem: Problem) -> torch.Tensor:
        return problem.to_data_units(mm_map(problem.A, problem.masked_kspace, energy, max_iterations=10).image)

    assert torch.equal(image(found), unit * image(expected))


@examples
@given(A=operators(dtype=torch.complex64), seed=SEEDS, unit=POWERS)
def test_samples_carry_the_unit_of_the_data_to_the_last_digit(A, seed, unit):
    energy, data = energy_of(seed, torch.float32), data_of(A, seed)

    def samples(problem: Problem) -> torch.Tensor:
        drawn = langevin(
            problem.A,
            problem.masked_kspace,
            energy,
            noise_std=0.1,
            num_steps=8,
            num_samples=2,
            keep=2,
            generator=torch.Generator().manual_seed(seed),
        )
        return problem.to_data_units(drawn.images)

    assert torch.equal(samples(problem_of(A, unit * data)), unit * samples(problem_of(A, data)))


@examples
@given(A=operators(), seed=SEEDS, unit=st.floats(1e-9, 1e9))
def test_a_unit_that_is_no_power_of_two_is_carried_but_for_rounding(A, seed, unit):
    data = data_of(A, seed)
    found, expected = problem_of(A, unit * data), problem_of(A, data)
    torch.testing.assert_close(found.scale, unit * expected.scale, rtol=1e-9, atol=0)
    assert_close(found.masked_kspace, expected.masked_kspace, 1e-9)


def posterior_of(problem: Problem, seed: int) -> dict[str, torch.Tensor]:
    """The arrays of a posterior file, as an engine computes them."""
    inference = Langevin(num_steps=8, num_samples=2, keep=4, max_iterations=10, tolerance=1e-12)
    inference.shared = SharedSettings(noise_std=0.1)
    arrays = reconstruct(problem, energy_of(seed), inference, seed=seed).arrays
    return {name: array for name, array in arrays.items() if not name.endswith("seconds")}


IN_UNITS = ("map", "mean", "std", "std_complex", "quantiles", "scale")


@settings(examples, max_examples=6)
@given(A=operators(), seed=SEEDS, unit=POWERS)
def test_the_reconstruction_of_an_engine_carries_the_unit_and_its_figures_do_not(A, seed, unit):
    data = data_of(A, seed)
    found, expected = posterior_of(problem_of(A, unit * data), seed), posterior_of(problem_of(A, data), seed)
    for name, array in expected.items():
        assert torch.equal(found[name], unit * array if name in IN_UNITS else array), name


# ---- Coils


@settings(examples, max_examples=8)
@given(A=operators(), seed=SEEDS, data=st.data())
def test_the_order_of_coils_changes_nothing_but_rounding(A, seed, data):
    order = torch.tensor(data.draw(st.permutations(range(A.sensitivity_map.shape[1]))))
    kspace = data_of(A, seed)
    other = SenseOperator(A.sensitivity_map[:, order], A.sampling_mask)
    found, expected = posterior_of(problem_of(other, kspace[:, order]), seed), posterior_of(problem_of(A, kspace), seed)
    for name in (*IN_UNITS, "cost"):
        # Sums in another order, in double precision, through ten iterations and eight steps.
        assert_close(found[name], expected[name], 1e-8)
