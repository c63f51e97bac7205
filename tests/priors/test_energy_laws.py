"""Laws that every energy has to pass: all kinds in the registry of ``conftest.py``."""

import importlib
import inspect
import itertools
import pkgutil

import pytest
import torch

import direct_deepen.priors
from direct_deepen.priors import ConvEnergy, DifferentiableEnergy, Energy, QuadraticEnergy
from direct_deepen.priors.convolutional_energy import HEADS, TOPS
from direct_deepen.priors.networks import ACTIVATIONS, BORDERS


def subclasses(kind: type[Energy]) -> set[type[Energy]]:
    direct = set(kind.__subclasses__())
    return direct.union(*(subclasses(child) for child in direct))


def test_every_energy_of_the_package_has_cases(registered_energies):
    for module in pkgutil.walk_packages(direct_deepen.priors.__path__, "direct_deepen.priors."):
        importlib.import_module(module.name)
    of_the_package = {
        kind
        for kind in subclasses(Energy)
        # What is private is a part of another prior, and tested with it; what is abstract is none.
        if not inspect.isabstract(kind)
        and kind.__module__.startswith("direct_deepen.priors")
        and not kind.__name__.startswith("_")
    }
    assert of_the_package == {case.energy_type for case in registered_energies}


def test_cases_of_conv_energy_cover_every_pair_of_head_and_top_and_every_activation(registered_energies):
    arguments = [case.arguments for case in registered_energies if case.energy_type is ConvEnergy]
    assert {(each["head"], each["top"]) for each in arguments} == set(itertools.product(HEADS, TOPS))
    assert {each["activation"] for each in arguments} == set(ACTIVATIONS)


def inner_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left.conj() * right).real.flatten(1).sum(dim=1)


# ---- Value


def test_energy_is_a_non_negative_number_for_every_image(any_energy_case, draw):
    for size in (any_energy_case.size, any_energy_case.dimensions * (6,)):
        energy = any_energy_case.build(*size)
        for factor in (0.0, 1e-3, 1.0, 1e3):
            value = energy(factor * draw(3, *size))
            assert value.shape == (3,)
            assert bool((value >= 0).all())
            assert bool(torch.isfinite(value).all())


def test_value_and_grad_gives_the_value_of_forward_and_a_gradient_that_is_not_zero(any_energy_case, draw):
    energy, image = any_energy_case.build(*any_energy_case.size), draw(3, *any_energy_case.size)
    value, gradient = energy.value_and_grad(image)
    assert torch.equal(value, energy(image))
    assert gradient.shape == image.shape
    # Otherwise all laws on gradients would hold for a constant.
    assert float(gradient.abs().flatten(1).amax(dim=1).min()) > 1e-2


# ---- Gradient


def test_gradient_equals_that_of_autograd(any_energy_case, draw):
    energy, image = any_energy_case.build(*any_energy_case.size), draw(3, *any_energy_case.size).requires_grad_()
    (expected,) = torch.autograd.grad(energy(image).sum(), image)
    _, gradient = energy.value_and_grad(image)
    # The same graph, built once with and once without the weights: last digits.
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-13)


def test_gradient_predicts_the_change_of_energy_in_every_direction(any_energy_case, draw):
    h = 1e-6
    for seed in range(3):
        energy = any_energy_case.build(*any_energy_case.size, seed=seed)
        image, direction = draw(3, *any_energy_case.size, seed=seed), draw(3, *any_energy_case.size, seed=seed + 50)
        _, gradient = energy.value_and_grad(image)
        difference = (energy(image + h * direction) - energy(image - h * direction)) / (2 * h)
        # Central differences: truncation h² = 1e-12, rounding 1e-16·E/h, about 1e-9 for energies of order ten. Steps so
        # small meet a kink of relu or absolute once in about a thousand draws, with these images' thousand features.
        torch.testing.assert_close(inner_product(gradient, direction), difference, rtol=1e-6, atol=1e-7)


def test_first_and_second_derivative_of_smooth_energies(any_smooth_energy_case, draw):
    size = (*any_smooth_energy_case.size[:-2], 3, 4)
    energy = any_smooth_energy_case.build(*size)
    image = draw(1, *size).requires_grad_()
    # Against numerical differences with PyTorch's default tolerances. The second derivative is what score matching
    # uses; that of elu jumps at zero, where no feature of this image lies.
    assert torch.autograd.gradcheck(energy, image)
    assert torch.autograd.gradgradcheck(energy, image)


@torch.no_grad()
def test_gradient_of_smooth_energies_is_exact_to_second_order(any_smooth_energy_case, draw):
    energy = any_smooth_energy_case.build(*any_smooth_energy_case.size)
    image, direction = draw(3, *any_smooth_energy_case.size), 1e-2 * draw(3, *any_smooth_energy_case.size, seed=1)
    value, gradient = energy.value_and_grad(image)
    remainder = energy(image + direction) - value - inner_product(gradient, direction)
    halved = energy(image + direction / 2) - value - inner_product(gradient, direction) / 2
    # E(x + d) = E(x) + Re⟨∇E, d⟩ + O(‖d‖²): halving d divides the remainder by four, up to the third order. A wrong
    # factor in ∇E would divide it by two.
    quotient = remainder / halved
    assert bool(((quotient > 3) & (quotient < 5)).all())


# ---- No hidden effects


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.usefixtures("global_generators_untouched")
def test_value_and_grad_works_with_and_without_gradients_and_leaves_no_trace(any_energy_type_case, draw, mode):
    energy, image = any_energy_type_case.build(*any_energy_type_case.size), draw(3, *any_energy_type_case.size)
    copies = [tensor.detach().clone() for tensor in (image, *energy.parameters())]
    with mode():
        value, gradient = energy.value_and_grad(image)
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert not image.requires_grad
    assert image.grad is None
    assert all(parameter.requires_grad and parameter.grad is None for parameter in energy.parameters())
    for tensor, copy in zip((image, *energy.parameters()), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_what_requires_gradients_still_does_and_what_is_frozen_stays_so(any_energy_type_case, draw):
    image, energy = (
        draw(3, *any_energy_type_case.size).requires_grad_(),
        any_energy_type_case.build(*any_energy_type_case.size).requires_grad_(requires_grad=False),
    )
    value, gradient = energy.value_and_grad(image)
    assert not any(parameter.requires_grad for parameter in energy.parameters())
    assert image.requires_grad
    assert image.grad is None
    assert not value.requires_grad
    assert not gradient.requires_grad


def test_precision_is_that_of_the_weights_and_single_gives_the_same_to_its_rounding(any_energy_case, draw):
    image = draw(3, *any_energy_case.size)
    value, gradient = any_energy_case.build(*any_energy_case.size, dtype=torch.float32).value_and_grad(
        image.to(torch.complex64)
    )
    expected_value, expected_gradient = any_energy_case.build(*any_energy_case.size).value_and_grad(image)
    assert (value.dtype, gradient.dtype) == (torch.float32, torch.complex64)
    assert (expected_value.dtype, expected_gradient.dtype) == (torch.float64, torch.complex128)
    # 6e-8 for each of some hundred terms; cancellation in f may cost a digit or two.
    torch.testing.assert_close(value.double(), expected_value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient.to(torch.complex128), expected_gradient, rtol=1e-4, atol=1e-4)


def test_an_image_gets_the_same_alone(any_energy_case, draw):
    energy, images = any_energy_case.build(*any_energy_case.size), draw(4, *any_energy_case.size)
    values, gradients = energy.value_and_grad(images)
    for index in range(4):
        value, gradient = energy.value_and_grad(images[index : index + 1])
        # Sums may be taken in another order: last digits.
        torch.testing.assert_close(value, values[index : index + 1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, gradients[index : index + 1], rtol=1e-12, atol=1e-12)


def test_any_memory_layout_gives_the_same(any_energy_type_case, draw):
    energy, image = any_energy_type_case.build(*any_energy_type_case.size), draw(3, *any_energy_type_case.size)
    strided = image.mT.contiguous().mT
    conjugate = image.conj().resolve_conj().conj()  # the image again, as a view PyTorch has not evaluated
    assert not strided.is_contiguous()
    assert conjugate.is_conj()
    value, gradient = energy.value_and_grad(image)
    for same in (strided, conjugate):
        torch.testing.assert_close(energy.value_and_grad(same)[0], value, rtol=1e-12, atol=1e-12)  # last digits
        torch.testing.assert_close(energy.value_and_grad(same)[1], gradient, rtol=1e-12, atol=1e-12)


def test_weights_can_be_saved_and_loaded(any_energy_type_case, draw):
    energy, other = (
        any_energy_type_case.build(*any_energy_type_case.size, seed=0),
        any_energy_type_case.build(*any_energy_type_case.size, seed=1),
    )
    image = draw(2, *any_energy_type_case.size)
    assert not torch.equal(other(image), energy(image))
    other.load_state_dict(energy.state_dict())
    assert torch.equal(other(image), energy(image))


def test_every_energy_is_what_solvers_ask_for(any_energy_type_case):
    assert isinstance(any_energy_type_case.build(*any_energy_type_case.size), DifferentiableEnergy)


# ---- What distinguishes the kinds


def test_top_only_changes_how_the_scalar_is_folded(draw):
    image = draw(3, 5, 7)
    options = {"hidden_channels": 4, "num_layers": 3, "activation": "silu"}
    with torch.random.fork_rng(devices=[]):
        absolute = ConvEnergy(top="absolute", **options).double()
        smooth = ConvEnergy(top="smooth", top_width=0.3, **options).double()
    smooth.load_state_dict(absolute.state_dict())
    expected = (absolute(image) ** 2 + 0.3**2).sqrt()
    torch.testing.assert_close(smooth(image), expected, rtol=1e-12, atol=0)  # rounding


def test_flattened_head_is_a_linear_layer_on_all_features(draw):
    with torch.random.fork_rng(devices=[]):
        energy = ConvEnergy(hidden_channels=4, num_layers=3, head="flattened", image_size=(5, 7)).double()
    assert energy.head.weight.shape == (1, 4 * 5 * 7)
    image = draw(2, 5, 7)
    features = energy.features(torch.stack([image.real, image.imag], dim=1))
    expected = (features.flatten(1) @ energy.head.weight[0] + energy.head.bias).abs()
    torch.testing.assert_close(energy(image), expected, rtol=1e-12, atol=1e-12)  # rounding


@pytest.mark.parametrize("size", [(5, 6), (7, 5), (10, 14)], ids=str)
def test_flattened_head_refuses_another_image_size(draw, one_line_error, size):
    with torch.random.fork_rng(devices=[]):
        energy = ConvEnergy(hidden_channels=4, head="flattened", image_size=(5, 7)).double()
    with one_line_error("image", str(size), "(5, 7)", "pooled"):
        energy(draw(1, *size))
    with one_line_error("image", str(size), "(5, 7)", "pooled"):
        energy.value_and_grad(draw(1, *size))


SIZE_FREE = [ConvEnergy, QuadraticEnergy]


def size_free_energy(kind: type[Energy]) -> Energy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        energy = kind(hidden_channels=4, num_layers=2, activation="silu").double()
    if isinstance(energy, ConvEnergy):
        torch.nn.init.constant_(energy.head.bias, 10.0)  # far from the kink of |f|, so that E = f
    return energy


def place(patch: torch.Tensor, row: int, column: int) -> torch.Tensor:
    image = torch.zeros(1, 20, 24, dtype=patch.dtype)
    image[0, row : row + patch.shape[0], column : column + patch.shape[1]] = patch
    return image


@pytest.mark.parametrize("kind", SIZE_FREE)
def test_size_free_energies_add_up_over_separate_objects(draw, kind):
    energy = size_free_energy(kind)
    left, right = place(draw(4, 4, seed=1), 5, 4), place(draw(4, 4, seed=2), 8, 14)
    empty = energy(torch.zeros_like(left))
    together, one_by_one = energy(left + right) - empty, energy(left) + energy(right) - 2 * empty
    # Two 3×3 layers see two pixels far, so the objects do not meet: exact but for rounding.
    torch.testing.assert_close(together, one_by_one, rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", SIZE_FREE)
def test_size_free_energies_do_not_depend_on_where_an_object_is(draw, kind):
    energy, patch = size_free_energy(kind), draw(4, 4)
    # Away from the borders, where zeros are padded: exact but for rounding.
    torch.testing.assert_close(energy(place(patch, 5, 4)), energy(place(patch, 9, 15)), rtol=1e-12, atol=0)


def test_quadratic_energy_is_half_the_squared_distance_to_the_denoised_image(draw):
    energy, image = size_free_energy(QuadraticEnergy), draw(3, 5, 7)
    distance = image - energy.denoise(image)
    torch.testing.assert_close(energy(image), 0.5 * inner_product(distance, distance), rtol=1e-12, atol=0)  # rounding


# ---- Errors


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((2, 5, 7), torch.complex64, ["torch.complex64", "torch.complex128", "double"]),
        ((2, 5, 7), torch.float64, ["torch.float64", "complex (batch, height, width)"]),
        ((5, 7), torch.complex128, ["(5, 7)", "complex (batch, height, width)"]),
        ((1, 2, 5, 7), torch.complex128, ["(1, 2, 5, 7)", "complex (batch, height, width)"]),
    ],
    ids=["precision", "real", "no batch", "chains"],
)
def test_images_of_a_wrong_type_are_refused_in_one_line(energy_type_case, one_line_error, shape, dtype, words):
    energy = energy_type_case.build(5, 7)
    with one_line_error("image", *words):
        energy.value_and_grad(torch.zeros(shape, dtype=dtype))


def test_double_images_are_refused_by_single_weights(energy_type_case, one_line_error):
    with one_line_error("image", "torch.complex128", "torch.complex64"):
        energy_type_case.build(5, 7, dtype=torch.float32)(torch.zeros(2, 5, 7, dtype=torch.complex128))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kind", SIZE_FREE)
def test_weights_of_another_dimension_and_a_single_frame_are_refused_in_one_line(one_line_error, kind, border):
    flat, deep = (kind(hidden_channels=4, border=border, dimensions=dimensions) for dimensions in (2, 3))
    for energy, shape, words in [
        (flat, (1, 4, 5, 7), ["2 dimensions", "(1, 4, 5, 7)", "(batch, height, width)"]),
        (deep, (4, 5, 7), ["3 dimensions", "(4, 5, 7)", "(batch, depth or time, height, width)"]),
        (deep, (2, 1, 5, 7), ["3 dimensions", "(2, 1, 5, 7)", "one slice or frame", "two or more"]),
    ]:
        for method in (energy, energy.value_and_grad):
            with one_line_error("image", *words):
                method(torch.zeros(shape, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"head": "global"}, ["head", "'global'", "pooled", "flattened"]),
        ({"top": "square"}, ["top", "'square'", "absolute", "smooth"]),
        ({"activation": "tanh"}, ["activation", "'tanh'", *ACTIVATIONS]),
        ({"top_width": 0.0}, ["top_width", "0.0"]),
        ({"top_width": float("nan")}, ["top_width", "nan"]),
        ({"num_layers": 1}, ["num_layers", "1"]),
        ({"hidden_channels": 0}, ["hidden_channels", "0"]),
        ({"head": "flattened"}, ["image_size", "None"]),
        ({"head": "flattened", "image_size": (5, 7), "dimensions": 3}, ["image_size", "(5, 7)", "3"]),
        ({"head": "pooled", "image_size": (5, 7)}, ["image_size", "(5, 7)"]),
        ({"border": "reflect"}, ["border", "'reflect'", "zeros", "periodic"]),
        ({"dimensions": 4}, ["dimensions", "4", "2, 3"]),
    ],
)
def test_conv_energy_refuses_bad_arguments(one_line_error, arguments, words):
    with one_line_error(*words):
        ConvEnergy(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"activation": "tanh"}, ["activation", "'tanh'"]),
        ({"num_layers": 1}, ["num_layers", "1"]),
        ({"hidden_channels": 0}, ["hidden_channels", "0"]),
        ({"border": "reflect"}, ["border", "'reflect'", "zeros", "periodic"]),
        ({"dimensions": 4}, ["dimensions", "4", "2, 3"]),
    ],
)
def test_quadratic_energy_refuses_bad_arguments(one_line_error, arguments, words):
    with one_line_error(*words):
        QuadraticEnergy(**arguments)


def test_value_and_grad_works_in_inference_mode():
    energy = QuadraticEnergy(hidden_channels=4)
    with torch.inference_mode():
        image = torch.randn(2, 8, 9, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
        value, gradient = energy.value_and_grad(image)
    expected, expected_gradient = energy.value_and_grad(image.clone())
    assert torch.equal(value, expected)
    assert torch.equal(gradient, expected_gradient)
