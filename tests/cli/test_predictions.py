"""Reading the output folder of ``direct predict``."""

import h5py
import numpy as np
import pytest
import torch

from direct_deepen.evaluation.predictions import Prediction
from direct_deepen.posterior.posterior_file import PosteriorWriter, posterior_path


@pytest.fixture
def prediction(study):
    return Prediction(study.prediction, study.checkpoint)


def test_reconstruction_mask_and_posterior_are_what_was_written(study, prediction):
    images, masks = prediction.reconstruction("a.h5")
    with h5py.File(study.prediction / "a.h5") as file:
        np.testing.assert_array_equal(images, file["reconstruction"])
        np.testing.assert_array_equal(masks, file["sampling_mask"])
    posterior = prediction.posterior("a.h5")
    with h5py.File(study.prediction / "a.posterior.h5") as file:
        assert set(posterior) == set(file)
        np.testing.assert_array_equal(posterior["std"], file["std"])


def test_a_prediction_without_posterior_has_none(tmp_path, study, copied):
    (copied / "a.posterior.h5").unlink()
    assert Prediction(copied, study.checkpoint).posterior("a.h5") is None


def test_parameters_are_those_of_the_model(study, prediction):
    weights = torch.load(study.checkpoint, weights_only=True)["model"]
    assert prediction.parameters == sum(tensor.numel() for tensor in weights.values()) == 298


# ---- Seconds, from DIRECT's log

LINE = "[2026-01-01][DeepenEngine][INFO] - {} of 2 volumes reconstructed: {} (shape = [{}, 1, 32, 32]) in {}s.\n"


def seconds(tmp_path, study, log):
    (tmp_path / "log_0_0.txt").write_text(log)
    return Prediction(tmp_path, study.checkpoint).seconds


def test_seconds_are_found_in_the_log_that_direct_writes(study, prediction):
    log = (study.prediction / "log_0_0.txt").read_text()
    assert log.count("volumes reconstructed") == 2
    assert 0 < prediction.seconds < 60


def test_seconds_are_those_of_all_volumes_over_all_slices(tmp_path, study):
    # DIRECT writes the time since the start of the run.
    log = LINE.format(1, "a.h5", 2, "4.000") + "other line\n" + LINE.format(2, "b.h5", 6, "16.000")
    assert seconds(tmp_path, study, log) == pytest.approx(16 / 8)


def test_of_several_runs_in_one_log_the_last_counts(tmp_path, study):
    first = LINE.format(1, "a.h5", 2, "100.000") + LINE.format(2, "b.h5", 2, "200.000")
    second = LINE.format(1, "a.h5", 2, "2.000") + LINE.format(2, "b.h5", 2, "4.000")
    assert seconds(tmp_path, study, first + second) == pytest.approx(1.0)


def test_without_a_log_the_seconds_are_not_a_number(tmp_path, study):
    assert np.isnan(Prediction(tmp_path, study.checkpoint).seconds)
    assert np.isnan(seconds(tmp_path, study, "nothing of the kind\n"))


# ---- The posterior file


def test_a_volume_is_written_when_its_last_slice_comes_in_the_order_of_slices(tmp_path):
    volume = tmp_path / "data" / "a.h5"
    writer = PosteriorWriter(tmp_path / "output", {volume: 3}, {volume: {"noise_std": 0.01}})
    for number in (2, 0):
        assert writer.add(volume, number, {"map": np.full((2, 2), number), "cost": np.float64(number)}) is None
        assert not list(tmp_path.rglob("*.h5"))
    path = writer.add(volume, 1, {"map": np.full((2, 2), 1), "cost": np.float64(1)})
    assert path == posterior_path(tmp_path / "output", volume) == tmp_path / "output" / "a.posterior.h5"
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["map"][:, 0, 0], [0, 1, 2])
        np.testing.assert_array_equal(file["cost"], [0, 1, 2])
        assert file.attrs["noise_std"] == 0.01
    assert [entry.name for entry in (tmp_path / "output").iterdir()] == ["a.posterior.h5"]


def test_a_slice_of_an_unknown_volume_is_refused(tmp_path, one_line_error):
    writer = PosteriorWriter(tmp_path, {tmp_path / "a.h5": 1}, {})
    with one_line_error("b.h5", "not a volume"):
        writer.add(tmp_path / "b.h5", 0, {})
