"""The problems of the benchmark are those that DIRECT's commands solve, and bad files are named."""

import logging

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from torch.utils.data import default_collate

from direct_deepen.data.problems import inference_dataset
from direct_deepen.engines.problem import to_complex


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


def test_reading_a_dataset_twice_reports_no_file(study, caplog):
    with caplog.at_level(logging.INFO):
        study.cases(study.validation)
    assert not [record for record in caplog.records if "Parsing" in record.getMessage()]


# ---- What is refused


def test_a_slice_that_is_not_finite_is_named(tmp_path, study, one_line_error):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken"])
    with h5py.File(data / "broken.h5", "r+") as file:
        file["kspace"][1, 0, 16, 16] = float("nan")
    with one_line_error("broken.h5 slice 1", "NaN"):
        study.cases(data)


def test_a_volume_that_direct_cannot_transform_is_named(tmp_path, study, one_line_error):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken"])
    with h5py.File(data / "broken.h5", "r+") as file:
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = b"<no header"
    with one_line_error("broken.h5", "cannot be read"):
        study.cases(data)
