"""One slice written by each of DIRECT's Fourier transforms: the same problem and images; Calgary-Campinas."""

from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from torch.utils.data import default_collate

from direct_deepen.data.batch import reference_image, to_complex
from direct_deepen.data.cases import cases, inference_dataset
from direct_deepen.data.convention import convention_of, in_standard_convention
from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.evaluation.classical import l1_wavelet, total_variation
from direct_deepen.physics.sense import sense
from direct_deepen.posterior.posterior_file import posterior_path

ARGUMENTS = {
    "centred": "(centered=True)",
    "uncentred": "(centered=False)",
    "unnormalized": "(normalized=False)",
    "neither": "(centered=False, normalized=False)",
}
SIZES = {"even": 32, "odd": 31}
PAIRS = [
    ("centred", "even"),
    ("uncentred", "even"),
    ("uncentred", "odd"),
    ("unnormalized", "even"),
    ("neither", "odd"),
]
"""Where the centre lies depends on whether a size is even; the factor of an unnormalized transform does not."""

ROUNDING = 2e-5
"""Single precision through DIRECT's transforms, a solve, and divisions by small coil maps: up to 1e-5 was seen."""

AMPLIFIED = 2e-3
"""MAP of an untrained energy, and samples from there: data changed by 1e-7 of themselves change them by 1e-4."""


def with_convention(config, arguments):
    operators = {"physics.forward_operator": f"fft2{arguments}", "physics.backward_operator": f"ifft2{arguments}"}
    return tiny_direct.changed(config, operators)


def stored(kspace, arguments):
    """Centred orthonormal k-space as the transform of these arguments has it, its centre in the middle of the array.

    Scanners alternate the signs of lines; images that numpy's FFT makes of them are where they should be.
    """
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, (-2, -1)), norm="ortho"), (-2, -1))
    if "centered=False" in arguments:
        kspace = np.fft.fftshift(np.fft.fft2(images, norm="ortho"), (-2, -1))
    return (kspace * np.sqrt(np.prod(kspace.shape[-2:])) if "normalized=False" in arguments else kspace).astype("c8")


def relative_error(found, expected):
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request, tmp_path_factory):
    """Engines and batches of DIRECT's transforms, of the plain convention and of another."""
    arguments, size = ARGUMENTS[request.param[0]], SIZES[request.param[1]]
    kspace, found = tiny_direct.draw_kspace(3, slices=1, size=size), []
    for text in ("", arguments):
        folder = tmp_path_factory.mktemp("convention")
        (folder / "data").mkdir()
        write_fastmri_volume(folder / "data" / "a.h5", stored(kspace, text))
        config = with_convention(tiny_direct.with_espirit(tiny_direct.configuration()), text)
        config = tiny_direct.changed(tiny_direct.posterior(config), {"model.coil_maps": "direct"})
        config = tiny_direct.with_transforms(config, {"augmentation.pad": [size, size]})
        environment = tiny_direct.build_environment(folder / "engine", config)
        samples = tiny_direct.training_samples(environment, folder / "data")
        found.append((environment.engine, default_collate(samples)))
    return found


@pytest.mark.parametrize("coil_maps", ["direct", "espirit"])
def test_the_same_slice_has_the_same_problem_and_classical_images(pair, coil_maps):
    for engine, _ in pair:
        engine.configure("coil_maps", coil_maps)
    first, second = (engine._problem(batch) for engine, batch in pair)
    assert torch.equal(second.A.sampling_mask, first.A.sampling_mask)
    assert relative_error(second.A.sensitivity_map, first.A.sensitivity_map) < ROUNDING
    assert relative_error(second.scale, first.scale) < ROUNDING
    assert relative_error(second.masked_kspace, first.masked_kspace) < ROUNDING
    references = [
        reference_image(in_standard_convention(batch, engine.convention), problem)
        for (engine, batch), problem in zip(pair, (first, second), strict=True)
    ]
    assert relative_error(references[1], references[0]) < ROUNDING
    for method in (sense, partial(l1_wavelet, max_iterations=5), partial(total_variation, max_iterations=5)):
        images = [method(problem.A, problem.masked_kspace, regularization=0.01) for problem in (first, second)]
        assert relative_error(images[1], images[0]) < ROUNDING


def test_the_same_slice_has_the_same_map_and_samples_in_the_unit_of_directs_target(pair):
    (engine, batch), (other, same) = pair
    for one in (engine, other):
        one.configure("coil_maps", "direct")
        one.model.eval()
    other.model.load_state_dict(engine.model.state_dict())
    first, second = engine.reconstruction(engine._problem(batch)), other.reconstruction(other._problem(same))
    for name in ("map", "mean", "std", "scale"):
        assert relative_error(second.arrays[name], first.arrays[name]) < AMPLIFIED, name
    torch.testing.assert_close(same["target"], batch["target"], rtol=0, atol=1e-5 * float(batch["target"].max()))
    found, expected = other._do_iteration(dict(same)), engine._do_iteration(dict(batch))
    assert relative_error(found.output_image, expected.output_image) < AMPLIFIED
    # What DIRECT gets besides is its own.
    assert relative_error(found.sensitivity_map, same["sensitivity_map"]) < ROUNDING


def test_the_operator_is_that_of_the_engine_in_direct_up_to_the_rewriting(pair):
    _, (engine, batch) = pair
    engine.configure("coil_maps", "direct")
    problem = engine._problem(batch)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(problem.A.sensitivity_map[:, 0].shape, dtype=torch.complex64, generator=generator)
    theirs = engine._forward_operator(torch.view_as_real(image), batch["sensitivity_map"], batch["sampling_mask"])
    assert relative_error(problem.A.forward(image), engine.convention.standard_kspace(to_complex(theirs))) < 1e-6
    adjoint = engine._backward_operator(theirs, batch["sensitivity_map"], batch["sampling_mask"])
    assert relative_error(problem.A.normal(image), to_complex(adjoint)) < 1e-6


# ---- What no pair of operators can be


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        ("fft2(centered=False)", "ifft2"),
        ("fft2", "ifft2(normalized=False)"),
        ("fft2(normalized=False)", "ifft2(centered=False)"),
        ("fft2(complex_input=False)", "ifft2(complex_input=False)"),
        ("fft2(dim=(2, 3))", "ifft2(dim=(2, 3))"),
        ("fft2((1, 2), False)", "ifft2((1, 2), False)"),
        ("fft2(centered=0)", "ifft2(centered=0)"),
        ("ifft2", "fft2"),
        ("nufft", "nufft_adjoint"),
        ("fft2(", "ifft2("),
        ("fft2[0]", "ifft2"),
        ("", ""),
    ],
)
def test_operators_that_are_not_understood_are_one_line(one_line_error, forward, backward):
    with one_line_error("physics.forward_operator", repr(forward), repr(backward), "allowed"):
        convention_of(forward, backward)


def test_what_is_said_in_other_words_is_the_same():
    assert convention_of("fft2(centered=True)", "ifft2") == convention_of("fft2", "ifft2(normalized=True)")


@pytest.mark.parametrize("arguments", ["", "(centered=False)"])
def test_a_centre_in_the_corner_is_one_line(tmp_path, arguments, one_line_error):
    (tmp_path / "data").mkdir()
    corner = np.fft.ifftshift(stored(tiny_direct.draw_kspace(3), arguments), (-2, -1))
    write_fastmri_volume(tmp_path / "data" / "a.h5", corner)
    environment = tiny_direct.build_environment(tmp_path, with_convention(tiny_direct.configuration(), arguments))
    batch = default_collate(tiny_direct.training_samples(environment, tmp_path / "data"))
    with one_line_error("a.h5", "slice 0", "corner", "allowed", "fftshift"):
        environment.engine._problem(batch)


# ---- Calgary-Campinas


def calgary_config(config):
    datasets = {"name": "CalgaryCampinas"}
    config = with_convention(config, "(centered=False)")
    config = tiny_direct.changed(config, {f"inference.dataset.{key}": value for key, value in datasets.items()})
    config = tiny_direct.changed(config, {f"training.datasets.0.{key}": value for key, value in datasets.items()})
    return tiny_direct.with_transforms(config, {"cropping.crop": None, "augmentation.pad": None})


def write_calgary_volumes(folder, kspace):
    """As the challenge has them: (slices, rows, columns, 2 coils), real and imaginary parts in turn."""
    folder.mkdir()
    for name, volume in kspace.items():
        parts = np.moveaxis(stored(volume, "(centered=False)"), 1, -1)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["kspace"] = np.ascontiguousarray(parts).view(np.float32)
    return folder


def without_the_last_columns(kspace):
    """DIRECT sets the last 15 % of the columns to zero, which were not measured."""
    kspace = kspace.copy()
    kspace[..., int(np.ceil(0.85 * kspace.shape[-1])) :] = 0
    return kspace


@pytest.fixture(scope="module")
def calgary(tmp_path_factory):
    """Two runs, of a Calgary-Campinas folder and of the same slices in fastMRI's form: folder, settings, checkpoint."""
    kspace, runs = {name: tiny_direct.draw_kspace(seed) for seed, name in enumerate("ab")}, []
    posterior = tiny_direct.posterior(tiny_direct.configuration())
    for form in ("calgary", "fastmri"):
        folder = tmp_path_factory.mktemp(form)
        if form == "calgary":
            data, config = write_calgary_volumes(folder / "data", kspace), calgary_config(posterior)
        else:
            data, config = folder / "data", posterior
            data.mkdir()
            for name, volume in kspace.items():
                write_fastmri_volume(data / f"{name}.h5", without_the_last_columns(volume))
        run = tiny_direct.direct_train(folder / "runs", config, data)
        runs.append((data, config, run))
    return runs


def test_calgary_campinas_is_trained_as_the_same_slices_in_fastmris_form(calgary):
    weights = [tiny_direct.weights_of(run, 7) for _, _, run in calgary]
    for name, expected in weights[1].items():
        # Adam divides gradients by their size, so that rounding is as large as a share of a step of 0.002.
        torch.testing.assert_close(weights[0][name], expected, rtol=0, atol=2e-4)


def test_calgary_campinas_is_predicted_as_the_same_slices_in_fastmris_form(calgary, tmp_path):
    checkpoint, found = calgary[0][2] / "model_7.pt", []
    for number, (data, config, _) in enumerate(calgary):
        output = tiny_direct.direct_predict(tmp_path / str(number), config, data, checkpoint)
        found.append({})
        for path in (output / "a.h5", posterior_path(output, Path("a.h5"))):
            with h5py.File(path) as file:
                found[-1] |= {name: torch.from_numpy(np.array(file[name])) for name in file}
    first, second = found
    assert torch.equal(first["sampling_mask"], second["sampling_mask"])
    for name in ("reconstruction", "mean", "std", "map", "scale"):
        assert relative_error(first[name], second[name]) < AMPLIFIED, name


@pytest.mark.parametrize("step", ["columns", "scattered"])
def test_calgary_campinas_undersampled_already_is_one_line_and_no_second_mask(tmp_path, step, exit_with_one_line):
    kspace = tiny_direct.draw_kspace(0)
    mask = (
        np.zeros(kspace.shape[-2:]) if step == "columns" else np.random.default_rng(0).random(kspace.shape[-2:]) < 0.2
    )
    mask[:, ::3] = 1 if step == "columns" else mask[:, ::3]
    mask[12:20, 12:20] = 1
    data = write_calgary_volumes(tmp_path / "data", {"a": kspace * mask})
    with exit_with_one_line("a.h5", "slice", "undersampled already", "allowed"):
        tiny_direct.direct_train(tmp_path / "runs", calgary_config(tiny_direct.configuration()), data)


def test_cases_of_calgary_campinas_have_references_and_no_size_to_crop_to(calgary, monkeypatch):
    data, config, run = calgary[0]
    path = tiny_direct.write_configuration(run.parent / "cases.yaml", config)
    monkeypatch.chdir(data.parent)
    found = list(cases(inference_dataset(path, Path(data.name))))
    assert [(case.volume, case.slice_number) for case in found] == [("a.h5", 0), ("a.h5", 1), ("b.h5", 0), ("b.h5", 1)]
    monkeypatch.chdir(calgary[1][0].parent)
    path = tiny_direct.write_configuration(run.parent / "others.yaml", calgary[1][1])
    for case, other in zip(found, cases(inference_dataset(path, Path("data"))), strict=True):
        assert case.reconstruction_size is None
        assert relative_error(case.reference, other.reference) < ROUNDING
        assert relative_error(case.problem.scale, other.problem.scale) < ROUNDING


def test_maps_of_one_everywhere_leave_the_signs_to_the_data(tmp_path):
    (tmp_path / "data").mkdir()
    write_fastmri_volume(tmp_path / "data" / "a.h5", stored(tiny_direct.draw_kspace(3), "(centered=False)"))
    config = with_convention(tiny_direct.configuration(), "(centered=False)")
    config = tiny_direct.with_transforms(config, {"sensitivity_map_estimation.sensitivity_maps_type": "UNIT"})
    environment = tiny_direct.build_environment(tmp_path, config)
    batch = default_collate(tiny_direct.training_samples(environment, tmp_path / "data"))
    maps = environment.engine._problem(batch).A.sensitivity_map
    assert relative_error(maps, maps[..., :1, :1].expand(maps.shape)) < 1e-6
