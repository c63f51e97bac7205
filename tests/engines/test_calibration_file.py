"""The calibration beside a checkpoint: what it says, when it is refused, and that ``direct predict`` follows it."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
import yaml

from direct_deepen.engines.calibration_file import (
    Calibration,
    calibration_path,
    fitted_calibration,
    read_calibration,
    write_calibration,
)
from direct_deepen.engines.checkpoints import digest_of, weights_of
from direct_deepen.engines.settings import system_of

SCALE, OF_RINGS = 2.5, 1.5
TOTAL = SCALE * OF_RINGS


@pytest.fixture
def calibrated(tmp_path, checkpoint, mean_config):
    """A copy of the checkpoint with a calibration beside it: where both are, and what the latter says."""
    copied = tmp_path / "weights" / "model_8.pt"
    copied.parent.mkdir()
    shutil.copy(checkpoint, copied)
    inference = system_of(mean_config["model"]).inference
    calibration = Calibration(
        std_scale=SCALE,
        level=0.9,
        coverage_before=0.5,
        volumes=1,
        slices=2,
        weights_sha256=digest_of(weights_of(checkpoint)),
        sampling=inference.sampling(),
        seed=3,
        direct_deepen_version="0",
        torch_version="0",
        ring_scales=[OF_RINGS, OF_RINGS],
    )
    write_calibration(calibration_path(copied), calibration)
    return SimpleNamespace(
        checkpoint=copied, path=calibration_path(copied), calibration=calibration, inference=inference
    )  # fmt: skip


# ---- The file


def test_a_calibration_lies_beside_its_checkpoint_and_is_read_as_it_was_written(calibrated):
    names = {path.name for path in calibrated.path.parent.iterdir()}
    assert names == {"model_8.pt", "model_8.calibration.yaml"}
    assert read_calibration(calibrated.path) == calibrated.calibration
    assert "direct-deepen calibrate" in calibrated.path.read_text().splitlines()[0]


OF_BEFORE = {
    "noise_std": 0.01, "noise_start_std": 0.1, "prior_weight": 1.0, "num_samples": 3, "num_steps": 12, "keep": 10,
    "start": "map", "step_size": None, "preconditioner": None,
}  # fmt: skip
"""What files of before the inferences were parts say of sampling; those of before there was a choice of precision."""


@pytest.mark.parametrize("newer", [{}, {"convolutions": "float32"}, {"averaged_noise": False}])
def test_a_calibration_of_an_earlier_version_is_read_and_fits(calibrated, one_line_error, newer):
    content = yaml.safe_load(calibrated.path.read_text())
    calibrated.path.write_text(yaml.safe_dump(content | {"sampling": OF_BEFORE | newer}))
    assert fitted_calibration(calibrated.checkpoint, calibrated.inference).std_scale == SCALE
    for key, value in {"num_steps": 9, "convolutions": "bfloat16", "averaged_noise": True}.items():
        with one_line_error("model_8.calibration.yaml", key):
            fitted_calibration(calibrated.checkpoint, replace(calibrated.inference, **{key: value}))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("std_scale: 2.5", "std_scale: -1.0", ["std_scale is -1.0", "> 0"]),
        ("std_scale: 2.5", "std_scale: wide", ["no calibration", "std_scale"]),
        ("std_scale: 2.5", "", ["no calibration", "std_scale"]),
        ("std_scale: 2.5", "std_scale: 2.5\nother: 1", ["no calibration", "other"]),
        ("std_scale: 2.5", "std_scale: [", ["no YAML"]),
        ("- 1.5", "- -1.5", ["ring_scales is -1.5", "> 0"]),
    ],
)
def test_a_damaged_calibration_is_refused(calibrated, one_line_error, before, after, words):
    text = calibrated.path.read_text()
    assert before in text
    calibrated.path.write_text(text.replace(before, after))
    with one_line_error("model_8.calibration.yaml", *words):
        read_calibration(calibrated.path)


def test_the_digest_depends_on_names_types_shapes_and_values_alone():
    weights = {"a": torch.arange(6.0), "b": torch.tensor(1.0)}
    same = digest_of(weights)
    assert digest_of(dict(reversed(weights.items()))) == same
    assert digest_of({"a": torch.arange(12.0)[::2] / 2, "b": weights["b"]}) == same
    others = (
        {"a": weights["a"].reshape(2, 3)}, {"a": weights["a"].double()}, {"a": weights["a"] + 1e-6},
        {"c": weights["a"]},
    )  # fmt: skip
    assert len({same, *(digest_of(weights | other) for other in others)}) == 5


def test_all_that_the_spread_depends_on_is_compared(calibrated, mean_config, one_line_error):
    def fitted(changes):
        section = tiny_direct.changed(mean_config["model"], changes)
        return fitted_calibration(calibrated.checkpoint, system_of(section).inference).std_scale

    assert fitted({}) == SCALE
    others = {
        "noise_std": {"noise_std": 0.02},
        "num_steps": {"inference.num_steps": 99},
        "preconditioner": {"inference.preconditioner": 0.3},
        "convolutions": {"inference.convolutions": "bfloat16"},
        "averaged_noise": {"inference.averaged_noise": True},
        "sampler": {"inference": {"name": "annealed_langevin"}},
    }
    for name, changes in others.items():
        with one_line_error("model_8.calibration.yaml", name, "direct-deepen calibrate"):
            fitted(changes)
    # What only costs time is free.
    assert fitted({"inference.max_images": 1}) == SCALE


# ---- Prediction


def content(output):
    with h5py.File(output / "test.posterior.h5") as file:
        return {name: dataset[()] for name, dataset in file.items()}, dict(file.attrs)


def test_predict_rescales_the_posterior_and_says_so(tmp_path, calibrated, mean_config, volume, mean_prediction):
    output = tiny_direct.direct_predict(tmp_path / "output", mean_config, volume, calibrated.checkpoint)
    (found, attributes), (before, plain) = content(output), content(mean_prediction)
    assert (plain["calibrated"], plain["std_scale"]) == (False, 1.0)
    assert (attributes["calibrated"], attributes["std_scale"]) == (True, SCALE)
    assert list(attributes["ring_scales"]) == [OF_RINGS, OF_RINGS]
    assert "ring_scales" not in plain
    # Single precision: the mean is taken out and added again.
    np.testing.assert_allclose(found["std_complex"], TOTAL * before["std_complex"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["mean"], before["mean"], atol=1e-5 * np.abs(before["mean"]).max())
    np.testing.assert_array_equal(found["map"], before["map"])
    np.testing.assert_allclose(found["std"], TOTAL * before["std"], rtol=1e-3, atol=1e-6)
    away = found["quantiles"] - np.abs(found["mean"])[:, None], before["quantiles"] - np.abs(before["mean"])[:, None]
    np.testing.assert_allclose(away[0], TOTAL * away[1], rtol=1e-3, atol=1e-4 * np.abs(away[0]).max())


def test_predict_refuses_the_calibration_of_other_weights(
    tmp_path, calibrated, mean_config, volume, exit_with_one_line
):
    write_calibration(calibrated.path, replace(calibrated.calibration, weights_sha256="0" * 64))
    with exit_with_one_line("model_8.calibration.yaml", "other weights", "direct-deepen calibrate", "remove"):
        tiny_direct.direct_predict(tmp_path / "output", mean_config, volume, calibrated.checkpoint)


def test_a_map_prediction_needs_no_calibration(tmp_path, calibrated, map_config, volume, map_prediction):
    calibrated.path.write_text("nothing", encoding="utf-8")
    output = tiny_direct.direct_predict(tmp_path / "output", map_config, volume, calibrated.checkpoint)
    (found, attributes), (before, _) = content(output), content(map_prediction)
    np.testing.assert_array_equal(found["map"], before["map"])
    assert "calibrated" not in attributes
