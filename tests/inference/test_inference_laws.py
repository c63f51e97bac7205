"""Laws that every inference has to pass: all that take data and a prior, in one registry."""

import inspect

import pytest
import torch

from direct_deepen import inference
from direct_deepen.physics import SenseOperator
from direct_deepen.priors import Denoiser, ImageNetwork, QuadraticEnergy

REGULARIZED = 1e-2
SIZE = 8
SHAPES = [((SIZE, SIZE), 2), ((2, 4, 5), 2), ((2, 4, 5), 3)]
"""Sizes of images, and how many of their axes have a Fourier transform: slices, a series and a volume."""


def network(kind):
    """A small prior, random but the same every time, of weights large enough to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = kind(hidden_channels=4, num_layers=3, activation="elu")
    for parameter in prior.parameters():
        parameter.detach().mul_(1.5)
    return prior.double()


def identity(image):
    return image


class NoEnergy:
    """E = 0: what is left is least squares."""

    def value_and_grad(self, image):
        return image.real.new_zeros(image.shape[0]), torch.zeros_like(image)


def by_langevin(A, b, prior):
    generator = torch.Generator().manual_seed(0)
    # Cold: the mean of the density and not its spread is what the laws below ask for.
    return inference.langevin(A, b, prior, noise_std=1e-6, num_steps=300, num_samples=1, generator=generator,
                              init=A.adjoint(b)).images[0]  # fmt: skip


def annealed(sampler):
    """A sampler from coarse to fine, cold and with the same energy at every level."""

    def run(A, b, prior):
        arguments = {"noise_std": 1e-5, "noise_levels": [1e-4, 0.5e-4, 1e-5], "inner_steps": 8}
        return sampler(A, b, lambda level: prior, **arguments, generator=torch.Generator().manual_seed(0)).images[0]

    return run


INFERENCES = {
    # name: (run, prior, no prior)
    "mm_map": (lambda A, b, p: inference.mm_map(A, b, p, tolerance=1e-9).image, QuadraticEnergy, NoEnergy()),
    "langevin": (by_langevin, QuadraticEnergy, NoEnergy()),
    "annealed_langevin": (annealed(inference.annealed_langevin), QuadraticEnergy, NoEnergy()),
    "preconditioned_annealed_langevin": (
        annealed(inference.preconditioned_annealed_langevin),
        QuadraticEnergy,
        NoEnergy(),
    ),
    "proximal_iteration": (
        lambda A, b, p: inference.proximal_iteration(A, b, p, step_size=1.0, max_iterations=20).image,
        Denoiser,
        identity,
    ),
    "unrolled_gradient": (
        lambda A, b, p: inference.unrolled_gradient(A, b, p, step_size=0.9, num_steps=12),
        QuadraticEnergy,
        NoEnergy(),
    ),
    "equilibrium": (
        lambda A, b, p: inference.equilibrium(A, b, p, data_weight=2.0, tolerance=1e-8).image,
        ImageNetwork,
        identity,
    ),
}


WITH_LAWS_OF_ITS_OWN = {"diffusion_posterior_sampling"}
"""It goes towards the data by steps of constant length, from noise of order one: it can be run neither cold nor to an
end, so that what holds for it is another list (test_diffusion_sampling.py)."""


@pytest.fixture(params=INFERENCES)
def case(request):
    run, kind, nothing = INFERENCES[request.param]

    def without_graph(*arguments):
        with torch.no_grad():
            return run(*arguments)

    return without_graph, network(kind), nothing


@pytest.fixture
def problem(random_operator, draw):
    """An operator, and data that no image explains."""
    A = random_operator(2, 3, SIZE, SIZE)
    return A, A.forward(draw(2, SIZE, SIZE)) + 0.1 * A.sampling_mask * draw(2, 3, SIZE, SIZE, seed=1)


def test_every_inference_of_the_package_is_in_the_registry():
    public = {
        name
        for name in inference.__all__
        if inspect.isfunction(getattr(inference, name))
        and "masked_kspace" in inspect.signature(getattr(inference, name)).parameters
    }
    assert public == set(INFERENCES) | WITH_LAWS_OF_ITS_OWN


def test_what_is_given_stays_as_it_was_and_the_result_is_of_its_type(case, problem, global_generators_untouched):
    run, prior, _ = case
    A, b = problem
    copies = b.clone(), A.sensitivity_map.clone(), A.sampling_mask.clone()
    weights = [parameter.clone() for parameter in prior.parameters()]
    image = run(A, b, prior)
    assert image.shape == (2, SIZE, SIZE)
    assert image.dtype == b.dtype
    assert all(torch.equal(*pair) for pair in zip(copies, (b, A.sensitivity_map, A.sampling_mask), strict=True))
    assert all(torch.equal(*pair) for pair in zip(weights, prior.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in prior.parameters())


def test_what_an_image_gets_does_not_depend_on_the_rest_of_the_batch(case, problem):
    run, prior, _ = case
    A, b = problem
    index = torch.tensor([0])
    together, alone = run(A, b, prior)[:1], run(A.select(index), b[:1], prior)
    # Cold samplers add noise of 1e-5, another one in another batch.
    assert float((together - alone).norm()) < 1e-4 * float(together.norm())


def test_an_operator_of_three_methods_will_do(case, problem, plain_operator):
    run, prior, _ = case
    A, b = problem
    full, plain = run(A, b, prior), run(plain_operator(A), b, prior)
    # Its norm is estimated, which the steps of chains depend on; the laws ask for the same minimum.
    assert float((full - plain).norm()) < 1e-3 * float(full.norm())


@pytest.mark.parametrize(("size", "dimensions"), SHAPES, ids=str)
def test_with_no_prior_and_all_samples_the_data_are_inverted(case, random_operator, size, dimensions):
    run, _, nothing = case
    A = random_operator(2, 3, *size, fourier_dimensions=dimensions).fully_sampled()
    truth = A.adjoint(A.forward(torch.ones(2, *size, dtype=torch.complex128)))
    image = run(A, A.forward(truth), nothing)
    # AᴴA = I: all steps contract the error by a constant factor; unrolled, by 0.1 each of twelve times.
    assert float((image - truth).norm()) < 1e-4 * float(truth.norm())


def test_the_prior_matters(case, problem):
    run, prior, nothing = case
    A, b = problem
    assert float((run(A, b, prior) - run(A, b, nothing)).norm()) > 1e-3 * float(b.norm())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_data_that_are_not_finite_are_refused(case, problem, one_line_error, value):
    run, prior, _ = case
    A, b = problem
    b = b.clone()
    b[0, 0, 0, 0] = value
    with one_line_error("masked_kspace", "finite"):
        run(A, b, prior)


def test_autocast_around_it_changes_nothing(case, problem):
    run, prior, _ = case
    A, b = (problem[0].sensitivity_map.to(torch.complex64), problem[1].to(torch.complex64))
    A, single = SenseOperator(A, problem[0].sampling_mask), prior.float()
    expected = run(A, b, single)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run(A, b, single), expected)


# ---- Samplers: one random generator for every image of every chain


class Level:
    """The conditional mean of N(0, 1) at a noise level, as a denoiser and as ∇E_σ = x/(1 + σ²)·σ²."""

    def __call__(self, x, level):
        return x / (1 + level**2)

    def at(self, level):
        class Energy:
            def value_and_grad(self, image):
                share = level**2 / (1 + level**2)
                return 0.5 * share * image.abs().square().flatten(1).sum(dim=1), share * image

        return Energy()


LEVELS = {"noise_levels": [1.0, 0.3, 0.1]}
SAMPLERS = {
    "langevin": lambda A, b, **k: inference.langevin(A, b, network(QuadraticEnergy), noise_std=0.1, num_steps=12, **k),
    "langevin from sense": lambda A, b, **k: inference.langevin(
        A, b, network(QuadraticEnergy), noise_std=0.1, num_steps=12, init="sense", step_size=0.5, **k
    ),
    "metropolis": lambda A, b, **k: inference.langevin(
        A, b, network(QuadraticEnergy), noise_std=0.1, num_steps=12, metropolis=True, **k
    ),
    "preconditioned": lambda A, b, **k: inference.langevin(
        A, b, network(QuadraticEnergy), noise_std=0.1, num_steps=12, preconditioner=0.3, **k
    ),
    "annealed": lambda A, b, **k: inference.annealed_langevin(A, b, Level().at, noise_std=0.1, **LEVELS, **k),
    "mask shaped": lambda A, b, **k: inference.annealed_langevin(
        A, b, Level().at, noise_std=0.1, **LEVELS, **k,
        conditional_noise=inference.mask_shaped_noise(A.sampling_mask, 0.1),
    ),
    "preconditioned annealed": lambda A, b, **k: inference.preconditioned_annealed_langevin(
        A, b, Level().at, noise_std=0.1, **LEVELS, **k
    ),
    "annealed metropolis": lambda A, b, **k: inference.preconditioned_annealed_langevin(
        A, b, Level().at, noise_std=0.1, metropolis=True, **LEVELS, **k
    ),
    "diffusion": lambda A, b, **k: inference.diffusion_posterior_sampling(A, b, Level(), **LEVELS, **k),
}  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("normalized", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_chain_is_the_same_whatever_runs_beside_it(random_operator, draw, sampler, normalized):
    A = random_operator(2, 3, SIZE, SIZE, normalized=normalized)
    b = A.forward(draw(2, SIZE, SIZE)) + 0.1 * A.sampling_mask * draw(2, 3, SIZE, SIZE, seed=1)

    def run(A, b, num_samples, max_images):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(3)
            return SAMPLERS[sampler](A, b, generator=generator, num_samples=num_samples, max_images=max_images).images

    expected = run(A, b, 3, 32)
    others = [run(A, b, 3, 2), run(A, b, 1, 32), run(A, b, 2, 1), run(A.select(torch.tensor([0])), b[:1], 2, 32)]
    for images in others:
        part = expected[: images.shape[0], : images.shape[1]]
        # The same noise, bit for bit; convolutions and transforms of batches of other shapes round otherwise.
        torch.testing.assert_close(images, part, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", ["annealed", "preconditioned annealed", "diffusion"])
@pytest.mark.parametrize(("size", "dimensions"), [shape for shape in SHAPES if len(shape[0]) == 3], ids=str)
def test_samplers_of_slices_are_samplers_of_series_and_volumes(random_operator, draw, sampler, size, dimensions):
    A = random_operator(2, 3, *size, fourier_dimensions=dimensions)
    b = A.forward(draw(2, *size))

    def run(A, b):
        with torch.no_grad():
            return SAMPLERS[sampler](A, b, generator=torch.Generator().manual_seed(3), num_samples=3).images

    together, alone = run(A, b), run(A.select(torch.tensor([0])), b[:1])
    assert together.shape == (3, 2, *size)
    torch.testing.assert_close(together[:, :1], alone, rtol=0, atol=1e-9)


def test_the_shortcut_of_alps_for_noise_is_for_slices(random_operator, one_line_error):
    with one_line_error("sampling_mask", "(2, 1, 2, 4, 5)", "(batch, 1, height, width)"):
        inference.mask_shaped_noise(random_operator(2, 3, 2, 4, 5).sampling_mask, 0.1)


@pytest.mark.parametrize("sampler", ["langevin", "annealed", "diffusion"])
def test_samples_do_not_depend_on_data_outside_the_mask(random_operator, draw, sampler):
    A = random_operator(1, 3, SIZE, SIZE)
    b = A.forward(draw(1, SIZE, SIZE))

    def run(b):
        with torch.no_grad():
            return SAMPLERS[sampler](A, b, generator=torch.Generator().manual_seed(3), num_samples=1).images

    assert torch.equal(run(b + ~A.sampling_mask * draw(1, 3, SIZE, SIZE, seed=2)), run(b))
