"""From DIRECT's batch to the core's problem: the operator, the scale, the reference, and what is refused."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from direct.data.datasets_config import AugmentationTransformConfig
from omegaconf import OmegaConf

from direct_deepen.data.batch import NamedSlices, problem_from_batch, reference_image, to_complex
from direct_deepen.physics.scale import intensity_scale

# Both sides are single precision and take the same steps in another order.
SINGLE = 1e-6


def complex_images(problem, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(problem.A.sensitivity_map[:, 0].shape, dtype=torch.complex64, generator=generator)


@pytest.fixture
def problem(batch):
    return problem_from_batch(batch)


def relative_error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


# ---- The operator


def test_forward_and_adjoint_are_those_of_the_engine_in_direct(environment, batch, problem):
    maps, mask = batch["sensitivity_map"], batch["sampling_mask"]
    image = complex_images(problem)
    kspace = environment.engine._forward_operator(torch.view_as_real(image), maps, mask)
    assert relative_error(problem.A.forward(image), to_complex(kspace)) < SINGLE
    adjoint = environment.engine._backward_operator(kspace, maps, mask)
    assert relative_error(problem.A.adjoint(to_complex(kspace)), to_complex(adjoint)) < SINGLE


def test_the_engine_leaves_the_maps_of_the_transforms_as_they_are(environment, batch):
    # The benchmark takes them from the dataset, without the engine.
    normalized = environment.engine.compute_sensitivity_map(batch["sensitivity_map"])
    assert relative_error(normalized, batch["sensitivity_map"]) < SINGLE


def test_the_data_lie_in_the_range_of_the_operator_but_for_coil_map_errors(batch, problem):
    # Wrong axes, a missing shift or a conjugated map would leave nothing in common.
    reference = reference_image(batch, problem)
    residual = problem.A.forward(reference) - problem.masked_kspace
    assert residual.abs().square().sum() < 0.05 * problem.masked_kspace.abs().square().sum()


# ---- The scale


def test_data_times_scale_are_the_batch_and_scaled_data_have_scale_one(batch, problem):
    kspace = to_complex(batch["masked_kspace"])
    torch.testing.assert_close(problem.masked_kspace * problem.scale[:, None, None, None], kspace)
    torch.testing.assert_close(intensity_scale(problem.A, problem.masked_kspace), torch.ones(3), rtol=1e-5, atol=0)
    image = complex_images(problem)
    torch.testing.assert_close(problem.to_data_units(image)[1], image[1] * problem.scale[1])


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_units_of_the_data_change_the_scale_and_nothing_else(batch, problem, unit):
    other = dict(batch, masked_kspace=unit * batch["masked_kspace"], kspace=unit * batch["kspace"])
    scaled = problem_from_batch(other)
    torch.testing.assert_close(scaled.scale, unit * problem.scale, rtol=1e-5, atol=0)
    torch.testing.assert_close(scaled.masked_kspace, problem.masked_kspace, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reference_image(other, scaled), reference_image(batch, problem), rtol=1e-5, atol=1e-6)


def test_the_field_of_view_is_that_of_the_header_image_by_image(batch, problem):
    height, width = batch["sampling_mask"].shape[-3:-1]
    # As of readout oversampling by two, of none, and of an image that was interpolated to more pixels.
    sizes = [torch.tensor([height // 2, height, 2 * height]), torch.tensor([width] * 3)]
    found = problem_from_batch(batch | {"field_of_view": sizes}).scale
    torch.testing.assert_close(found, problem.scale * torch.tensor([2, 1, 1]).sqrt(), rtol=SINGLE, atol=0)
    of_object = problem_from_batch(batch | {"field_of_view": sizes}, scale_kind="object")
    expected = intensity_scale(problem.A, to_complex(batch["masked_kspace"]), kind="object")
    assert torch.equal(of_object.scale, expected)


def test_a_field_of_view_of_no_rows_is_refused_with_the_slice(batch, one_line_error):
    with one_line_error("a.h5 slice 0", "field_of_view", "at least 1"):
        problem_from_batch(batch | {"field_of_view": [torch.tensor([0, 8, 8]), torch.tensor([8, 8, 8])]})


def test_a_mask_without_a_centre_that_maps_can_be_estimated_from_is_refused(batch, one_line_error):
    # Three lines: fastMRI's mask of a small image, or of a small centre.
    mask = torch.zeros_like(batch["sampling_mask"])
    mask[:, :, :, ::4] = mask[:, :, :, 15:18] = True
    with one_line_error("a.h5 slice 0", "sampling_mask", "4×4 samples about the centre", "center_fractions"):
        problem_from_batch(batch | {"sampling_mask": mask})
    of_one_coil = torch.zeros_like(batch["sensitivity_map"])
    of_one_coil[:, 0, ..., 0] = 1
    assert problem_from_batch(batch | {"sampling_mask": mask, "sensitivity_map": of_one_coil}).scale.min() > 0


# ---- The reference


def test_the_reference_has_the_magnitude_of_the_target_that_direct_trains_and_scores_on(batch, problem):
    reference = problem.to_data_units(reference_image(batch, problem))
    assert relative_error(reference.abs(), batch["target"]) < 1e-5


def test_the_reference_knows_of_no_mask(samples, batch, problem):
    other = dict(batch, masked_kspace=batch["kspace"], sampling_mask=torch.ones_like(batch["sampling_mask"]))
    full = problem_from_batch(other)
    expected = problem.to_data_units(reference_image(batch, problem))
    assert relative_error(full.to_data_units(reference_image(other, full)), expected) < SINGLE


# ---- Names and parts


def test_names_are_those_of_file_and_slice(batch, problem, volumes):
    a, b = f"{volumes.name}/a.h5", f"{volumes.name}/b.h5"
    assert problem.names == [(a, 0), (a, 1), (b, 0)]


def test_a_selected_problem_is_that_of_the_selected_slices(batch, problem):
    part = problem.select(torch.tensor([2, 0]))
    assert part.names == [problem.names[2], problem.names[0]]
    torch.testing.assert_close(part.masked_kspace[1], problem.masked_kspace[0])
    torch.testing.assert_close(part.scale, problem.scale[[2, 0]])
    image = complex_images(problem)
    torch.testing.assert_close(part.A.forward(image[[2, 0]]), problem.A.forward(image)[[2, 0]])


# ---- What is refused


def not_a_number(batch):
    batch["masked_kspace"][1, 0, 3, 4, 1] = float("nan")


def infinite(batch):
    batch["masked_kspace"][1, 0, 3, 4, 1] = float("inf")


def empty_mask(batch):
    batch["sampling_mask"][1] = False


def empty_centre(batch):
    batch["sampling_mask"][1, 0, 14:19, 14:19] = False


def no_signal(batch):
    batch["masked_kspace"][1] = 0.0


def fewer_maps(batch):
    batch["sensitivity_map"] = batch["sensitivity_map"][:, :-1]


def maps_not_finite(batch):
    batch["sensitivity_map"][1, 0, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (not_a_number, "masked_kspace"),
        (infinite, "masked_kspace"),
        (empty_mask, "sampling_mask"),
        (empty_centre, "sampling_mask"),
        (no_signal, "masked_kspace"),
        (fewer_maps, "sensitivity_map"),
        (maps_not_finite, "sensitivity_map"),
    ],
)
def test_bad_data_are_refused_by_the_name_of_their_file_and_slice(batch, one_line_error, damage, word):
    damaged = copy.deepcopy(batch)
    damage(damaged)
    name, number = batch["filename"][1], int(batch["slice_no"][1])
    with one_line_error(word, f"{name} slice {number}", "allowed"):
        problem_from_batch(damaged)


def test_training_without_full_kspace_is_refused_by_the_name_of_the_key(batch, problem, one_line_error):
    del batch["kspace"]
    with one_line_error("transforms.delete_kspace"):
        reference_image(batch, problem)


def test_a_reference_that_is_not_finite_is_refused_by_the_name_of_its_file(batch, problem, one_line_error):
    kspace = batch["kspace"].clone()
    kspace[0, 0, 0, 0, 0] = float("nan")
    with one_line_error("kspace", batch["filename"][0], "allowed"):
        reference_image(dict(batch, kspace=kspace), problem)


@pytest.mark.parametrize("factor", [0.1, 2.83, 10.0])
def test_maps_of_files_in_another_unit_give_the_same_problem(batch, problem, factor):
    batch["sensitivity_map"] = batch["sensitivity_map"] * factor
    found = problem_from_batch(batch)
    assert relative_error(found.A.sensitivity_map, problem.A.sensitivity_map) < SINGLE
    assert relative_error(found.masked_kspace, problem.masked_kspace) < SINGLE
    assert relative_error(reference_image(batch, found), reference_image(batch, problem)) < SINGLE


def test_a_spawned_process_reads_a_dataset_of_direct():
    """As on macOS, and in a process of its own: DIRECT's modules import one another, and the first one decides."""
    sent = pickle.dumps((NamedSlices, OmegaConf.structured(AugmentationTransformConfig)))
    read = "import pickle, sys; print(pickle.load(sys.stdin.buffer)[1].rescale)"
    done = subprocess.run([sys.executable, "-c", read], input=sent, capture_output=True, timeout=100)
    assert done.stdout.decode().strip() == "None", done.stderr.decode()
