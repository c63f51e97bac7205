"""The cases of commands are the slices that DIRECT's commands solve, and bad files are named."""

import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
import yaml
from torch.utils.data import default_collate

from direct_deepen.data import cases as data_cases
from direct_deepen.data.batch import problem_from_batch, to_complex
from direct_deepen.data.cases import inference_dataset
from direct_deepen.data.inspection import inspect_volume
from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.physics.scale import intensity_scale


@pytest.fixture(scope="module")
def tested(study):
    return study.cases(study.test)


def test_cases_come_volume_by_volume_in_the_order_of_their_names(tested):
    assert [(case.volume, case.slice_number) for case in tested] == [
        ("a.h5", 0),
        ("a.h5", 1),
        ("b.h5", 0),
        ("b.h5", 1),
    ]


def test_what_is_not_chosen_is_not_computed(study, tested, monkeypatch):
    found = []

    def counted(*arguments, **options):
        found.append(problem_from_batch(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(data_cases, "problem_from_batch", counted)
    some = list(data_cases.cases(inference_dataset(study.configuration, study.test), chosen={1, 2}))
    assert [(case.volume, case.slice_number) for case in some] == [("a.h5", 1), ("b.h5", 0)]
    assert len(found) == 2
    torch.testing.assert_close(some[1].reference, tested[2].reference, rtol=0, atol=0)


def test_a_case_is_what_the_engine_gets_in_training(tmp_path, study, tested):
    environment = tiny_direct.build_environment(tmp_path, study.configuration)
    samples = tiny_direct.training_samples(environment, study.test)
    for case in tested:
        (sample,) = [
            sample
            for sample in samples
            if sample["filename"].endswith(case.volume) and sample["slice_no"] == case.slice_number
        ]
        batch = default_collate([sample])
        torch.testing.assert_close(case.problem.masked_kspace * case.problem.scale, to_complex(batch["masked_kspace"]))
        assert torch.equal(case.problem.A.sampling_mask, batch["sampling_mask"].squeeze(-1))
        assert torch.equal(case.problem.A.sensitivity_map, to_complex(batch["sensitivity_map"]))
        # Single precision, another order of the sums.
        error = (case.problem.to_data_units(case.reference).abs() - batch["target"]).abs().max()
        assert float(error) < 1e-5 * float(batch["target"].max())


def test_transforms_can_be_changed_without_another_file(tmp_path, study, tested, one_line_error):
    changes = {"masking": {"accelerations": [2.0]}, "augmentation": {"pad": [40, 40]}}
    config = tiny_direct.with_transforms(
        tiny_direct.configuration(), {"masking.accelerations": [2.0], "augmentation.pad": [40, 40]}
    )
    path = tiny_direct.write_configuration(tmp_path / "changed.yaml", config)
    found = study.cases(study.test, transforms=changes)
    for case, expected, before in zip(found, study.cases(study.test, path), tested, strict=True):
        assert torch.equal(case.problem.masked_kspace, expected.problem.masked_kspace)
        assert case.problem.masked_kspace.shape != before.problem.masked_kspace.shape
    with one_line_error("inference.dataset", "no_such_key"):
        inference_dataset(study.configuration, study.test, transforms={"no_such_key": 1})


def test_the_mask_of_a_case_is_the_one_that_direct_predict_wrote(study, tested):
    for case in tested:
        with h5py.File(study.prediction / case.volume) as file:
            mask = file["sampling_mask"][case.slice_number]
        np.testing.assert_array_equal(np.squeeze(mask) != 0, case.problem.A.sampling_mask[0, 0].numpy())


def test_a_case_is_in_scaled_intensities_and_its_scale_in_the_units_of_the_file_whatever_direct_divides_by(
    tmp_path, study, tested
):
    config = tiny_direct.with_transforms(tiny_direct.configuration(), {"normalization.scaling_key": "masked_kspace"})
    path = tiny_direct.write_configuration(tmp_path / "scaled.yaml", config)
    for scaled, plain in zip(study.cases(study.test, path), tested, strict=True):
        torch.testing.assert_close(scaled.problem.scale.float(), plain.problem.scale, rtol=1e-5, atol=0)
        torch.testing.assert_close(scaled.reference, plain.reference, rtol=1e-4, atol=1e-5)


def oversampled(folder: Path, study) -> Path:
    """Write the volumes of the study with as many rows of air beside the image as it has, and a header that says so."""
    (folder / "test").mkdir()
    for path in study.test.glob("*.h5"):
        with h5py.File(path) as file, h5py.File(folder / "test" / path.name, "w") as wide:
            images = torch.nn.functional.pad(ifft2(torch.from_numpy(file["kspace"][()])), (0, 0, 16, 16))
            wide["kspace"] = fft2(images).numpy()
            encoded, image = file["ismrmrd_header"][()].decode().split("<reconSpace>")
            wide["ismrmrd_header"] = f"{encoded.replace('<x>32</x>', '<x>64</x>')}<reconSpace>{image}".encode()
    return folder / "test"


def uncropped(folder: Path, study, **changes) -> Path:
    config = tiny_direct.with_transforms(yaml.safe_load(study.configuration.read_text()), {"cropping.crop": None})
    return tiny_direct.write_configuration(folder / "uncropped.yaml", tiny_direct.changed(config, changes))


def test_readout_oversampling_changes_no_scale(tmp_path, study, tested):
    path = uncropped(tmp_path, study)
    for case, other in zip(study.cases(oversampled(tmp_path, study), path), tested, strict=True):
        assert case.problem.A.sampling_mask.shape[-2:] == (64, 32)
        # Discs of eleven and five samples: measured 2 %. A mean over all rows is smaller by √2.
        torch.testing.assert_close(case.problem.scale, other.problem.scale, rtol=0.03, atol=0)


def test_scales_are_of_the_kind_of_the_configuration(tmp_path, study, tested, one_line_error):
    path = uncropped(tmp_path, study, **{"model.intensity_scale": "object"})
    for case, other in zip(study.cases(study.test, path), tested, strict=True):
        assert not torch.equal(case.problem.scale, other.problem.scale)
        scale = intensity_scale(case.problem.A, case.problem.masked_kspace, kind="object")
        torch.testing.assert_close(scale, torch.ones(1), rtol=1e-5, atol=0)
    path = uncropped(tmp_path, study, **{"model.intensity_scale": "head"})
    with one_line_error("uncropped.yaml", "model.intensity_scale", "'head'", "field_of_view, object"):
        inference_dataset(path, study.test)


def test_reading_a_dataset_twice_reports_no_file(study, caplog):
    with caplog.at_level(logging.INFO):
        study.cases(study.validation)
    assert not [record for record in caplog.records if "Parsing" in record.getMessage()]


# ---- What is refused


def not_finite(file):
    file["kspace"][1, 0, 16, 16] = float("nan")


def without_header(file):
    del file["ismrmrd_header"]
    file["ismrmrd_header"] = b"<no header"


@pytest.mark.parametrize(
    ("damage", "words"),
    [(not_finite, ("broken.h5 slice 1", "NaN")), (without_header, ("broken.h5", "ismrmrd_header is no XML"))],
)
def test_a_slice_that_is_not_finite_or_that_direct_cannot_transform_is_named(
    tmp_path, study, one_line_error, damage, words
):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken"])
    with h5py.File(data / "broken.h5", "r+") as file:
        damage(file)
    with one_line_error(*words):
        study.cases(data)


# ---- Masks of the files

MASK = np.arange(tiny_direct.SIZE) % 3 == 0
MASK[12:20] = True
OF_FILES = {"masking": None, "cropping.crop": None, "augmentation.pad": None}


@pytest.fixture
def reading(tmp_path):
    """A configuration that takes the masks of the files."""
    config = tiny_direct.with_transforms(tiny_direct.configuration(), OF_FILES)
    config = tiny_direct.changed(config, {"inference.dataset.pass_mask": True})
    return tiny_direct.write_configuration(tmp_path / "reading.yaml", config)


@pytest.fixture
def with_masks(tmp_path, study):
    """The test data, fully sampled, and a mask in every file."""
    folder = tmp_path / "with_masks" / study.test.name
    shutil.copytree(study.test, folder)
    for path in folder.iterdir():
        with h5py.File(path, "r+") as file:
            file["mask"] = MASK
    return folder


@pytest.fixture
def undersampled(tmp_path, study):
    """The test data, undersampled by a mask."""
    folder = tmp_path / "undersampled" / study.test.name
    for path in study.test.iterdir():
        tiny_direct.undersample(path, folder / path.name, MASK)
    return folder


def test_masks_are_those_of_the_files_and_references_those_of_all_data(study, reading, with_masks):
    found = study.cases(with_masks, reading)
    for case in found:
        assert torch.equal(case.problem.A.sampling_mask[0, 0, 0], torch.from_numpy(MASK))
        assert not case.problem.masked_kspace[..., ~torch.from_numpy(MASK)].any()
    # Of the coil maps of another centre the references are other images, of nearly the same magnitude.
    for case, other in zip(found, study.cases(study.test), strict=True):
        image, expected = (item.problem.to_data_units(item.reference).abs() for item in (case, other))
        assert (case.volume, case.slice_number) == (other.volume, other.slice_number)
        assert float((image - expected).norm()) < 0.1 * float(expected.norm())


def test_simulated_masks_do_not_mind_a_mask_in_the_file_of_full_data(study, tested, with_masks):
    for case, expected in zip(study.cases(with_masks), tested, strict=True):
        assert torch.equal(case.problem.masked_kspace, expected.problem.masked_kspace)
        assert torch.equal(case.reference, expected.reference)


def test_undersampled_data_have_no_reference_whichever_mask_is_used(study, reading, undersampled, one_line_error):
    for configuration in (study.configuration, reading):
        with one_line_error("a.h5", "undersampled already", "`mask`", "fully sampled", "masking: null", "pass_mask"):
            study.cases(undersampled, configuration)


@pytest.mark.parametrize("command", ["benchmark", "posterior", "landscape", "calibrate"])
def test_commands_with_references_refuse_undersampled_data_in_one_line(
    tmp_path, study, run_command, undersampled, command
):
    path = study.write(tmp_path / "study.yaml", "zero_filled", test=str(undersampled))
    data = ["--cfg", str(study.configuration), "--data-root", str(undersampled)]
    validation = ["--validation-root", str(study.validation)]
    arguments = {
        "benchmark": [str(tmp_path / "out"), "--study", str(path)],
        "posterior": [str(study.prediction / "a.posterior.h5"), *data],
        "landscape": [str(study.checkpoint), *data],
        "calibrate": [str(tmp_path / "out"), *data, *validation, "--checkpoint", str(study.checkpoint)],
    }
    result = run_command([command, *arguments[command]])
    assert result.code == 2
    (line,) = result.errors
    assert "a.h5: undersampled already" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pass_mask": False}, ["transforms.masking is null", "pass_mask: true"]),
        ({"transforms.cropping.crop": "reconstruction_size"}, ["cropping.crop", "'reconstruction_size'", "null"]),
        ({"transforms.augmentation.pad": [40, 40]}, ["augmentation.pad", "40, 40", "null"]),
        ({"transforms.augmentation.rescale": [16, 16]}, ["augmentation.rescale", "16, 16", "null"]),
    ],
)
def test_settings_that_do_not_go_with_the_masks_of_files_are_named(
    tmp_path, study, reading, with_masks, one_line_error, changes, words
):
    changes = {f"inference.dataset.{key}": value for key, value in changes.items()}
    config = tiny_direct.changed(yaml.safe_load(reading.read_text()), changes)
    path = tiny_direct.write_configuration(tmp_path / "changed.yaml", config)
    with one_line_error("inference.dataset", *words):
        study.cases(with_masks, path)


def test_a_volume_without_a_mask_over_its_columns_is_named(study, reading, with_masks, one_line_error):
    with h5py.File(with_masks / "b.h5", "r+") as file:
        del file["mask"]
    with one_line_error("b.h5", "holds no `mask`", "pass_mask", "(32,)"):
        study.cases(with_masks, reading)


def _disc():
    y, x = np.meshgrid(*[np.linspace(-1, 1, tiny_direct.SIZE)] * 2, indexing="ij")
    return np.hypot(x, y) < 0.5


PLANE = np.broadcast_to(MASK, (tiny_direct.SIZE, tiny_direct.SIZE))


@pytest.mark.parametrize("mask", [MASK, MASK.astype(np.float32), MASK[None], PLANE & _disc(), _disc()[None, ..., None]])
def test_a_volume_whose_kspace_ends_with_its_mask_is_undersampled(tmp_path, study, one_line_error, mask):
    path = shutil.copy(study.test / "a.h5", tmp_path)
    with h5py.File(path, "r+") as file:
        file["mask"] = mask
        file["kspace"][...] *= np.squeeze(mask) != 0
    with one_line_error("a.h5", "undersampled already"):
        inspect_volume(Path(path))


@pytest.mark.parametrize("mask", [None, MASK, np.ones(32), np.stack([_disc()] * 2), np.ones(7), np.float32(1)])
def test_a_volume_with_samples_outside_its_mask_is_fully_sampled(tmp_path, study, mask):
    path = shutil.copy(study.test / "a.h5", tmp_path)
    with h5py.File(path, "r+") as file:
        # As fastMRI pads: without a mask, columns of zeros are no sign.
        file["kspace"][..., :3] = 0
        if mask is not None:
            file["mask"] = mask
    inspect_volume(Path(path))


def test_what_is_no_volume_cannot_be_told(tmp_path, one_line_error):
    path = tmp_path / "a.h5"
    path.write_bytes(b"no volume")
    with one_line_error("a.h5", "no fastMRI volume"):
        inspect_volume(Path(path))
