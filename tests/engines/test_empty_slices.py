"""Slices without a signal in what ``direct train`` trains on and validates with."""

import json
import logging

import numpy as np
import pytest
import tiny_direct
import torch
from test_bad_inputs import KSPACE, write

SHEPP_LOGAN = {"name": "SheppLoganProton", "shape": [32, 32, 6], "num_coils": 3, "seed": 1, "zlimits": [-1.0, 1.0]}
"""Of DIRECT's phantom: the first and the last slice lie outside of it, and hold 10⁻¹⁶ of noise."""

ZERO = KSPACE * np.array([1, 0], np.complex64)[:, None, None, None]


def with_datasets(config, **dataset):
    """The configuration with another training dataset, of the same transforms."""
    section = {**config["training"]["datasets"][0], **dataset}
    config = tiny_direct.changed(config, {"training.datasets": [section]})
    return tiny_direct.with_transforms(config, {"cropping.crop": None, "augmentation.pad": None})


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


SYSTEMS = ["demo_deepen", "phantom_muse", "phantom_elder", "phantom_mol", "phantom_dps", "phantom_pnp_ista"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_on_a_phantom_of_direct_leaves_out_slices_outside_of_it(tmp_path, caplog, name):
    config = with_datasets(tiny_direct.configuration(name, batch_size=3), **SHEPP_LOGAN)
    run = tiny_direct.direct_train(tmp_path, config, None)
    assert [line for line in warnings_of(caplog) if "no signal" in line] == [
        "training.datasets[0]: 2 of 6 slices hold no signal, and are left out: shepp_loggan_PROTON (2 of 6)."
    ]
    assert all(torch.isfinite(weight).all() for weight in tiny_direct.weights_of(run, 7).values())


@pytest.mark.parametrize("scaling", [None, "masked_kspace"])
def test_what_is_trained_is_what_the_other_slices_train(tmp_path, caplog, scaling):
    # The masks follow from the paths: both folders have the same name.
    data, alone = tmp_path / "with" / "volumes", tmp_path / "alone" / "volumes"
    for folder in (data, alone):
        write(folder / "a.h5", KSPACE)
        write(folder / "b.h5", ZERO if folder is data else KSPACE[:1])
    write(data / "c.h5", 0 * KSPACE)
    config = tiny_direct.configuration()
    validation = {**config["training"]["datasets"][0], "text_description": "validation"}
    config = tiny_direct.changed(config, {"validation.datasets": [validation]})
    config = tiny_direct.with_transforms(config, {"normalization.scaling_key": scaling})
    expected = tiny_direct.direct_train(tmp_path / "runs", config, alone, name="expected")
    caplog.clear()
    found = tiny_direct.direct_train(tmp_path / "runs", config, data, name="found")
    lines = [line for line in warnings_of(caplog) if "no signal" in line]
    assert [line.partition(":")[0] for line in lines] == ["training.datasets[0]", "validation.datasets[0]"]
    assert all("3 of 6 slices" in line and "b.h5 (1 of 2)" in line and "c.h5 (all 2)" in line for line in lines)
    weights = tiny_direct.weights_of(expected, 7)
    for key, weight in tiny_direct.weights_of(found, 7).items():
        assert torch.equal(weight, weights[key])
    metrics = [json.loads((run / "metrics_val_validation_7.json").read_text()) for run in (expected, found)]
    assert metrics[0] == metrics[1]
    assert sorted(metrics[1]) == ["a.h5", "b.h5"]


@pytest.mark.parametrize("key", ["training", "validation"])
def test_a_dataset_without_any_signal_is_one_line(tmp_path, exit_with_one_line, key):
    config = with_datasets(tiny_direct.configuration(), **SHEPP_LOGAN)
    section = {**config["training"]["datasets"][0], "zlimits": [2.0, 3.0]}
    with exit_with_one_line(f"{key}.datasets[0]: 6 of 6 slices hold no signal", "allowed"):
        tiny_direct.direct_train(tmp_path, tiny_direct.changed(config, {f"{key}.datasets": [section]}), None)


@pytest.mark.parametrize("factor", [1e-16, 0])
def test_samples_too_small_for_single_precision_are_no_signal(tmp_path, caplog, factor):
    write(tmp_path / "volumes" / "a.h5", KSPACE * np.array([1, factor], np.complex64)[:, None, None, None])
    tiny_direct.direct_train(tmp_path, tiny_direct.configuration(), tmp_path / "volumes")
    (line,) = [line for line in warnings_of(caplog) if "no signal" in line]
    assert "1 of 2 slices" in line
