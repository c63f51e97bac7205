"""Laws of the multi-coil forward model, and its equality with DIRECT's and sigpy's."""

import numpy as np
import pytest
import torch

from direct_deepen.physics import SenseOperator, normalize_sensitivity_map, sense_operator
from direct_deepen.physics.fourier import fft
from direct_deepen.physics.operator import LinearOperator, SupportsSelection

SIZES = [(8, 8), (7, 9), (6, 5)]
SHAPES = [*((size, 2) for size in SIZES), ((3, 4, 5), 2), ((4, 3, 5), 3)]
"""Sizes of images, and how many of their axes have a Fourier transform: slices, a series and a volume."""
LEADING = [(), (2,), (2, 3)]


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(actual - expected) / torch.linalg.vector_norm(expected))


# ---- The definition


@pytest.mark.parametrize(("size", "dimensions"), SHAPES)
def test_forward_is_sampling_of_the_fourier_transform_of_coil_images(random_operator, draw, size, dimensions):
    A = random_operator(2, 3, *size, fourier_dimensions=dimensions)
    image = draw(2, *size, seed=5)
    # test_fourier.py holds fft to its definition.
    expected = A.sampling_mask * fft(A.sensitivity_map * image[:, None], range(-dimensions, 0))
    torch.testing.assert_close(A.forward(image), expected, rtol=0, atol=1e-13)  # rounding


# ---- Adjoint and normal operator


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize(("size", "dimensions"), SHAPES)
def test_adjoint(random_operator, draw, size, dimensions, coils, leading):
    A = random_operator(2, coils, *size, normalized=False, fourier_dimensions=dimensions)
    image = draw(*leading, 2, *size, seed=2)
    kspace = draw(*leading, 2, coils, *size, seed=3)  # also where nothing is sampled
    left = torch.vdot(A.forward(image).flatten(), kspace.flatten())
    right = torch.vdot(image.flatten(), A.adjoint(kspace).flatten())
    # The project asks for 1e-10; rounding in double precision is near 1e-15.
    assert abs(left - right) <= 1e-12 * abs(left)


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize(("size", "dimensions"), SHAPES)
def test_normal_is_adjoint_after_forward(random_operator, draw, size, dimensions, coils, leading):
    A = random_operator(2, coils, *size, normalized=False, fourier_dimensions=dimensions)
    image = draw(*leading, 2, *size, seed=2)
    # Two ways through the same transforms: a few roundings of double precision apart.
    assert relative_error(A.normal(image), A.adjoint(A.forward(image))) <= 1e-13


def random_weights(batch=2, size=8):
    return 0.1 + 0.9 * torch.rand(batch, size, size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_weights_multiply_the_samples_in_all_three_methods(random_operator, draw):
    A, weights = random_operator(2, 3), random_weights()
    weighted, image, kspace = A.weighted(weights), draw(2, 8, 8, seed=2), draw(2, 3, 8, 8, seed=3)
    many = weights[:, None]
    torch.testing.assert_close(weighted.forward(image), many * A.forward(image), rtol=0, atol=1e-13)
    torch.testing.assert_close(weighted.adjoint(kspace), A.adjoint(many * kspace), rtol=0, atol=1e-13)
    assert relative_error(weighted.normal(image), A.adjoint(many**2 * A.forward(image))) <= 1e-13
    chosen = torch.tensor([1])
    torch.testing.assert_close(
        weighted.select(chosen).normal(image[1:]), weighted.normal(image)[1:], rtol=0, atol=1e-13
    )


def test_weights_that_vary_along_one_axis_of_a_full_mask_are_not_left_out(draw):
    # ``normal`` leaves axes alone along which nothing varies.
    maps = normalize_sensitivity_map(draw(1, 2, 8, 8))
    A = SenseOperator(maps, torch.ones(1, 1, 8, 8)).weighted(random_weights(1)[:, :1].expand(-1, 8, -1))
    image = draw(1, 8, 8, seed=2)
    assert relative_error(A.normal(image), A.adjoint(A.forward(image))) <= 1e-13


@pytest.mark.parametrize(
    ("weights", "named"),
    [(torch.zeros(2, 8, 8), "[0.0]"), (torch.full((2, 8, 8), 1.5), "[1.5]"), (torch.ones(2, 4, 8), "(2, 4, 8)")],
)
def test_weights_beyond_what_is_allowed_are_named(random_operator, one_line_error, weights, named):
    A = random_operator(2, 3)
    with one_line_error("weights", named, "allowed"):
        A.weighted(weights)


@pytest.mark.parametrize("size", [(8, 8), (2, 4, 8)], ids=str)
@pytest.mark.parametrize("samples", [1, 300])
def test_some_coils_at_a_time_are_all_coils_for_the_graph_too(random_operator, draw, monkeypatch, samples, size):
    A = random_operator(2, 5, *size)
    image, kspace = draw(2, *size, seed=2).requires_grad_(), draw(2, 5, *size, seed=3).requires_grad_()

    def values():
        cost = A.forward(image).abs().square().sum() + A.normal(image).abs().square().sum()
        cost = cost + A.adjoint(kspace).abs().square().sum()
        return [cost, *torch.autograd.grad(cost, [image, kspace])]

    at_once = values()
    monkeypatch.setattr(sense_operator, "_CPU_SAMPLES", samples)
    for part, whole in zip(values(), at_once, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-13)  # rounding of sums in another order


def test_leading_dimensions_share_maps_and_mask(random_operator, draw):
    A = random_operator(2, 3)
    images, kspace = draw(4, 2, 8, 8, seed=2), draw(4, 2, 3, 8, 8, seed=3)
    for chain in range(4):
        # The same numbers in a differently shaped batch: at most the last digits differ.
        torch.testing.assert_close(A.forward(images)[chain], A.forward(images[chain]), rtol=0, atol=1e-14)
        torch.testing.assert_close(A.adjoint(kspace)[chain], A.adjoint(kspace[chain]), rtol=0, atol=1e-14)
        torch.testing.assert_close(A.normal(images)[chain], A.normal(images[chain]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_every_type_of_mask_means_the_same_and_precision_is_that_of_the_maps(random_operator, draw, dtype, mask_dtype):
    boolean = random_operator(2, 3, dtype=dtype)
    A = SenseOperator(boolean.sensitivity_map, boolean.sampling_mask.to(mask_dtype))
    image = draw(2, 8, 8, seed=2, dtype=dtype)
    for operator_output, expected in [
        (A.forward(image), boolean.forward(image)),
        (A.normal(image), boolean.normal(image)),
        (A.adjoint(A.forward(image)), boolean.normal(image)),
    ]:
        assert operator_output.dtype == dtype
        assert operator_output.device == image.device
        # Single precision rounds at 6e-8; adjoint and normal differ by a few such roundings.
        torch.testing.assert_close(operator_output, expected, rtol=0, atol=1e-6 if dtype == torch.complex64 else 1e-14)
    assert torch.equal(A.forward(image), boolean.forward(image))


def test_nothing_given_is_changed(random_operator, draw):
    A = random_operator(2, 3)
    image, kspace = draw(2, 8, 8, seed=2), draw(2, 3, 8, 8, seed=3)
    given = [A.sensitivity_map, A.sampling_mask, image, kspace]
    copies = [tensor.clone() for tensor in given]
    A.forward(image)
    A.adjoint(kspace)
    A.normal(image)
    A.select(torch.tensor([0]))
    A.fully_sampled()
    for tensor, copy in zip(given, copies, strict=True):
        assert torch.equal(tensor, copy)


# ---- Norm


@pytest.mark.parametrize(("size", "dimensions"), [((6, 7), 2), ((2, 4, 5), 2), ((2, 4, 5), 3)])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_norm_bound_is_a_bound(random_operator, dense_normal, normalized, seed, size, dimensions):
    A = random_operator(1, 3, *size, seed=seed, normalized=normalized, fourier_dimensions=dimensions)
    largest = float(torch.linalg.eigvalsh(dense_normal(A))[-1])
    assert largest <= A.norm_squared_bound * (1 + 1e-12)  # rounding of the eigenvalue
    if normalized:
        assert A.norm_squared_bound == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize(("size", "dimensions"), [((6, 7), 2), ((2, 4, 5), 2), ((2, 4, 5), 3)])
def test_norm_bound_is_attained_by_full_sampling(random_operator, dense_normal, size, dimensions):
    A = random_operator(1, 3, *size, normalized=False, fourier_dimensions=dimensions).fully_sampled()
    largest = float(torch.linalg.eigvalsh(dense_normal(A))[-1])
    assert largest == pytest.approx(A.norm_squared_bound, rel=1e-12)  # rounding of the eigenvalue


# ---- Parts


@pytest.mark.parametrize(
    "index",
    [torch.tensor([2, 0]), torch.tensor([True, False, True]), torch.tensor([1])],
    ids=["integer", "boolean", "one"],
)
def test_select_is_the_operator_of_these_images(random_operator, draw, index):
    A = random_operator(3, 2)
    image = draw(3, 8, 8, seed=2)
    part = A.select(index)
    torch.testing.assert_close(part.forward(image[index]), A.forward(image)[index], rtol=0, atol=1e-14)  # last digits
    assert torch.equal(part.sensitivity_map, A.sensitivity_map[index])
    assert torch.equal(part.sampling_mask, A.sampling_mask[index])


# ---- Volumes and series


def test_a_series_is_its_frames_with_their_masks(random_operator, draw):
    A, image = random_operator(2, 3, 4, 6, 5), draw(2, 4, 6, 5, seed=2)
    for frame in range(4):
        one = SenseOperator(A.sensitivity_map[:, :, frame], A.sampling_mask[:, :, frame])
        torch.testing.assert_close(A.forward(image)[:, :, frame], one.forward(image[:, frame]), rtol=0, atol=1e-14)
        torch.testing.assert_close(A.normal(image)[:, frame], one.normal(image[:, frame]), rtol=0, atol=1e-14)


def test_maps_of_one_frame_are_those_of_all_frames(random_operator, draw):
    A, image, weights = random_operator(2, 3, 4, 6, 5), draw(2, 4, 6, 5, seed=2), draw(2, 4, 6, 5).abs()
    still = SenseOperator(A.sensitivity_map[:, :, :1], A.sampling_mask)
    moving = SenseOperator(A.sensitivity_map[:, :, :1].expand(-1, -1, 4, -1, -1), A.sampling_mask)
    kspace = draw(2, 3, 4, 6, 5, seed=3)
    for one, other in [(still, moving), (still.multiplied(weights), moving.multiplied(weights))]:
        torch.testing.assert_close(one.forward(image), other.forward(image), rtol=0, atol=1e-14)
        torch.testing.assert_close(one.adjoint(kspace), other.adjoint(kspace), rtol=0, atol=1e-14)
        torch.testing.assert_close(one.normal(image), other.normal(image), rtol=0, atol=1e-14)
        assert torch.equal(one.power, other.power)
        assert torch.equal(one.norm_squared_bound, other.norm_squared_bound)


def test_what_was_weighted_or_chosen_keeps_its_axes(random_operator, draw):
    A, image = random_operator(2, 3, 4, 6, 5, fourier_dimensions=3), draw(2, 4, 6, 5, seed=2)
    weights = (0.1 + 0.9 * draw(2, 4, 6, 5).abs() / 10).clamp_max(1)
    for made in (A.weighted(weights), A.fully_sampled(), A.select(torch.tensor([0, 1])), A.multiplied(weights)):
        assert relative_error(made.normal(image), made.adjoint(made.forward(image))) <= 1e-13
    torch.testing.assert_close(A.weighted(weights).forward(image), weights[:, None] * A.forward(image))


@pytest.mark.parametrize(
    ("maps", "mask", "axes", "words"),
    [
        ((1, 2, 3, 4, 5), (1, 1, 3, 4, 5), (-3, -3), ["fourier_axes", "(-3, -3)", "[-3, -2, -1]"]),
        ((1, 2, 4, 5), (1, 1, 4, 5), (-3, -2, -1), ["fourier_axes", "(-3, -2, -1)", "[-2, -1]"]),
        ((1, 2, 3, 4, 5), (1, 1, 3, 4, 5), (2, 3), ["fourier_axes", "(2, 3)"]),
        ((1, 2, 3, 4, 5), (1, 1, 3, 4, 5), (), ["fourier_axes", "()"]),
        # Along an axis of k-space, maps of one are of an image of one.
        ((1, 2, 1, 4, 5), (1, 1, 3, 4, 5), (-3, -2, -1), ["sampling_mask", "(1, 1, 3, 4, 5)", "(1, 1, 1, 4, 5)"]),
        ((1, 2, 2, 4, 5), (1, 1, 3, 4, 5), (-2, -1), ["sampling_mask", "(1, 1, 3, 4, 5)", "(1, 1, 2, 4, 5)"]),
        ((1, 2, 3, 4, 5), (1, 1, 4, 5), (-2, -1), ["sampling_mask", "(1, 1, 4, 5)", "(1, 1, 3, 4, 5)"]),
        ((1, 2, 1, 4, 5), (1, 1, 4, 5), (-2, -1), ["sampling_mask", "(1, 1, 4, 5)", "(1, 1, 1, 4, 5)"]),
    ],
)
def test_axes_and_shapes_that_do_not_go_together_are_one_line(one_line_error, maps, mask, axes, words):
    with one_line_error("allowed", *words):
        SenseOperator(torch.ones(maps, dtype=torch.complex64), torch.ones(mask), fourier_axes=axes)


def test_a_slice_is_no_series(random_operator, draw, one_line_error):
    with one_line_error("image", "(2, 6, 5)", "2, 4, 6, 5"):
        random_operator(2, 3, 4, 6, 5).forward(draw(2, 6, 5))


def test_fully_sampled_agrees_on_acquired_samples_and_is_an_isometry_for_normalized_maps(random_operator, draw):
    A = random_operator(2, 3)
    image = draw(2, 8, 8, seed=2)
    full = A.fully_sampled()
    assert bool(full.sampling_mask.all())
    torch.testing.assert_close(full.forward(image) * A.sampling_mask, A.forward(image), rtol=0, atol=1e-14)
    torch.testing.assert_close(full.normal(image), image, rtol=0, atol=1e-14)  # Σ|S|² = 1 and F unitary, to rounding


def test_protocols(random_operator, plain_operator):
    A = random_operator()
    assert isinstance(A, LinearOperator)
    assert isinstance(A, SupportsSelection)
    assert isinstance(plain_operator(A), LinearOperator)
    assert not isinstance(plain_operator(A), SupportsSelection)


# ---- Other implementations


@pytest.fixture(scope="module")
def direct_transforms():
    import direct.environment  # noqa: F401  (DIRECT's modules import one another in a circle otherwise)
    from direct.data import transforms

    return transforms


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_forward_equals_that_of_direct(random_operator, draw, direct_transforms, height, width):
    A = random_operator(2, 3, height, width, dtype=torch.complex64)
    image = draw(2, height, width, seed=2, dtype=torch.complex64)
    coil_images = direct_transforms.expand_operator(
        torch.view_as_real(image), torch.view_as_real(A.sensitivity_map), dim=1
    )
    kspace = direct_transforms.fft2(coil_images, dim=(2, 3))
    expected, _ = direct_transforms.apply_mask(kspace, A.sampling_mask[..., None])
    # DIRECT computes in single precision, which rounds at 6e-8.
    assert relative_error(A.forward(image), torch.view_as_complex(expected)) <= 1e-6


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_adjoint_equals_that_of_direct(random_operator, draw, direct_transforms, height, width):
    A = random_operator(2, 3, height, width, dtype=torch.complex64)
    kspace = draw(2, 3, height, width, seed=2, dtype=torch.complex64)
    masked, _ = direct_transforms.apply_mask(torch.view_as_real(kspace), A.sampling_mask[..., None])
    coil_images = direct_transforms.ifft2(masked, dim=(2, 3))
    expected = direct_transforms.reduce_operator(coil_images, torch.view_as_real(A.sensitivity_map), dim=1)
    # DIRECT computes in single precision, which rounds at 6e-8.
    assert relative_error(A.adjoint(kspace), torch.view_as_complex(expected)) <= 1e-6


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_forward_and_adjoint_equal_those_of_sigpy(random_operator, draw, height, width):
    from sigpy.mri.linop import Sense

    A = random_operator(1, 3, height, width)
    image, kspace = draw(1, height, width, seed=2), draw(1, 3, height, width, seed=3)
    # sigpy multiplies by the root of its weights: for zeros and ones that is the mask.
    theirs = Sense(A.sensitivity_map[0].numpy(), weights=A.sampling_mask[0, 0].numpy().astype(np.float64))
    forward, adjoint = torch.from_numpy(theirs(image[0].numpy())), torch.from_numpy(theirs.H(kspace[0].numpy()))
    # Both in double precision, a few roundings apart.
    assert relative_error(A.forward(image)[0], forward) <= 1e-13
    assert relative_error(A.adjoint(kspace)[0], adjoint) <= 1e-13


# ---- Normalised maps


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_normalized_maps_have_unit_sum_of_squares_where_any_coil_sees_something(draw, dtype):
    maps = draw(2, 3, 4, 5, dtype=dtype)
    maps[:, :, 1, 2] = 0
    maps[:, 1:, 0, 0] = 0
    normalized = normalize_sensitivity_map(maps)
    expected = torch.ones(2, 4, 5, dtype=maps.real.dtype)
    expected[:, 1, 2] = 0
    rounding = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close((normalized.abs() ** 2).sum(dim=1), expected, rtol=0, atol=rounding)
    # The factor is real and positive: phases, and ratios of coils, are kept.
    torch.testing.assert_close(normalized.abs() * maps, maps.abs() * normalized, rtol=0, atol=8 * rounding)
    assert normalized.dtype == dtype


# ---- Errors

MAPS, MASK = torch.ones(2, 3, 4, 5, dtype=torch.complex64), torch.ones(2, 1, 4, 5)


def broken(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor[1, 0, 2, 3] = value
    return tensor


@pytest.mark.parametrize(
    ("maps", "mask", "words"),
    [
        (MAPS[0], MASK, ["sensitivity_map", "(3, 4, 5)"]),
        (MAPS.real, MASK, ["sensitivity_map", "torch.float32", "complex"]),
        (MAPS, MASK[:, 0], ["sampling_mask", "(2, 4, 5)", "(2, 1, 4, 5)"]),
        (MAPS, MASK.expand(2, 3, 4, 5), ["sampling_mask", "(2, 3, 4, 5)", "(2, 1, 4, 5)"]),
        (MAPS, MASK[:1], ["sampling_mask", "(1, 1, 4, 5)", "(2, 1, 4, 5)"]),
        (MAPS, MASK.to(torch.complex64), ["sampling_mask", "torch.complex64"]),
        (broken(MAPS, float("nan")), MASK, ["sensitivity_map", "NaN"]),
        (broken(MAPS, float("inf")), MASK, ["sensitivity_map", "infinite"]),
        (MAPS, broken(MASK, 0.5), ["sampling_mask", "0 and 1"]),
        (MAPS, broken(MASK, float("nan")), ["sampling_mask", "0 and 1"]),
        (MAPS, torch.stack([MASK[0], 0 * MASK[1]]), ["sampling_mask", "[1]"]),
    ],
)
def test_errors_are_one_line_and_name_the_argument(one_line_error, maps, mask, words):
    with one_line_error(*words):
        SenseOperator(maps, mask)


def test_what_comes_of_an_operator_is_what_a_new_one_would_be_and_is_not_checked_again(
    random_operator, draw, monkeypatch
):
    A, image, data = random_operator(3), draw(2, 8, 8), draw(2, 3, 8, 8)
    phase, index = torch.polar(torch.ones(3, 8, 8).double(), torch.linspace(0, 3, 64).reshape(8, 8).double()), [2, 0]
    maps, mask = A.sensitivity_map, A.sampling_mask
    new = [
        SenseOperator(maps[index], mask[index]),
        SenseOperator(maps, torch.ones_like(mask)).select(torch.tensor(index)),
        SenseOperator((maps * phase[:, None])[index], mask[index]),
    ]
    monkeypatch.setattr(sense_operator, "_check_maps_and_mask", None)
    chosen = A.select(torch.tensor(index))
    made = [chosen, A.fully_sampled().select(torch.tensor(index)), A.multiplied(phase).select(torch.tensor(index))]
    assert torch.equal(A.sampling_mask, mask)
    for operator, expected in zip(made, new, strict=True):
        assert torch.equal(operator.sampling_mask, expected.sampling_mask)
        assert operator.sampling_mask.dtype == mask.dtype
        for name, argument in (("forward", image), ("adjoint", data), ("normal", image)):
            torch.testing.assert_close(getattr(operator, name)(argument), getattr(expected, name)(argument))
