"""A prediction that was cut short: the next run computes what is missing, and ends as if nothing had happened."""

import json
import logging
import re

import h5py
import numpy as np
import pytest
import recorded
import tiny_direct
import torch

KINDS = ("", ".posterior")


@pytest.fixture(scope="module")
def mean_config(mean_config):
    """That of all tests, with a sampler that tells of its batches."""
    return tiny_direct.recorded(mean_config)


class KilledError(BaseException):
    """What nothing catches."""


def predict_and_be_killed_at_the_second_volume(*arguments):
    batches = []

    def kill(_):
        batches.append(1)
        if len(batches) == 2:
            raise KilledError

    with recorded.listening(recorded.BEFORE_BATCH, kill), pytest.raises(KilledError):
        tiny_direct.direct_predict(*arguments)


def content_of(output):
    """All that a prediction has left, but for times: arrays, attributes and DIRECT's metrics."""
    content = {"metrics": json.loads((output / "metrics_inference.json").read_text())}
    for volume in ("a", "b"):
        for kind in KINDS:
            with h5py.File(output / f"{volume}{kind}.h5") as file:
                content |= {f"{volume}{kind}/{name}": dataset[()] for name, dataset in file.items()}
                content |= {f"{volume}{kind}@{name}": value for name, value in file.attrs.items()}
    return {name: value for name, value in content.items() if not name.endswith("seconds")}


def assert_equal_content(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, mean_config, volumes, checkpoint):
    """A prediction of both volumes that nothing disturbed."""
    return tiny_direct.direct_predict(tmp_path_factory.mktemp("whole"), mean_config, volumes, checkpoint)


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


# ---- Cut short


def test_a_killed_prediction_is_finished_by_the_next_run_and_equal_to_one_that_was_not_killed(
    tmp_path, mean_config, volumes, checkpoint, reconstructed, caplog
):
    # With a factor of DIRECT's own, digits are lost where images go from the file's units to its batch's.
    config = tiny_direct.with_transforms(mean_config, {"normalization.scaling_key": "masked_kspace"})
    output = tmp_path / "killed"
    predict_and_be_killed_at_the_second_volume(output, config, volumes, checkpoint)
    (done,) = [path.name.removesuffix(".posterior.h5") for path in output.glob("*.posterior.h5")]

    with caplog.at_level(logging.INFO):
        tiny_direct.direct_predict(output, config, volumes, checkpoint)
    # The first two entries are of the run that was killed.
    first, killed, second = reconstructed
    assert first == done
    assert killed == second
    assert {first, second} == {"a", "b"}
    assert "1 of 2 volumes were there already." in messages(caplog)
    whole = tiny_direct.direct_predict(tmp_path / "whole", config, volumes, checkpoint)
    assert_equal_content(content_of(output), content_of(whole))


def test_a_finished_prediction_computes_nothing_again(
    tmp_path, mean_config, volumes, checkpoint, whole, reconstructed, copy_of
):
    output = copy_of(whole)
    times = {path: path.stat().st_mtime_ns for path in output.glob("*.posterior.h5")}
    tiny_direct.direct_predict(output, mean_config, volumes, checkpoint)
    assert reconstructed == []
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert_equal_content(content_of(output), content_of(whole))


def test_without_samples_the_map_image_is_taken_from_the_file(tmp_path, map_config, volumes, checkpoint, reconstructed):
    config = tiny_direct.recorded(map_config)
    tiny_direct.direct_predict(tmp_path, config, volumes, checkpoint)
    first = content_of(tmp_path)
    tiny_direct.direct_predict(tmp_path, config, volumes, checkpoint)
    assert sorted(reconstructed) == ["a", "b"]
    assert_equal_content(content_of(tmp_path), first)


def test_a_volume_of_several_batches_is_found_slice_by_slice(tmp_path, mean_config, volumes, checkpoint, reconstructed):
    config = tiny_direct.changed(mean_config, {"inference.batch_size": 1})
    tiny_direct.direct_predict(tmp_path, config, volumes, checkpoint)
    first = content_of(tmp_path)
    reconstructed.clear()
    tiny_direct.direct_predict(tmp_path, config, volumes, checkpoint)
    assert reconstructed == []
    assert_equal_content(content_of(tmp_path), first)


# ---- What is another prediction


@pytest.fixture
def copy_of(tmp_path):
    """A copy of an output folder, to be predicted into once more."""

    def copy(output):
        copied = tmp_path / "copied"
        copied.mkdir()
        for path in output.iterdir():
            if path.is_file():
                (copied / path.name).write_bytes(path.read_bytes())
        return copied

    return copy


def test_another_prediction_is_computed_anew_and_the_log_says_what_is_another(
    tmp_path, mean_config, volumes, checkpoint, whole, reconstructed, copy_of, caplog
):
    changes = {
        "model.inference.num_steps": 13,
        "model.inference.noise_std": 0.011,
        "inference.dataset.transforms.masking.accelerations": [3.0],
    }
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content["model"].values()))[0] += 1e-3
    torch.save(content, tmp_path / "model_8.pt")
    config = tiny_direct.changed(mean_config, changes)
    with caplog.at_level(logging.INFO):
        tiny_direct.direct_predict(copy_of(whole), config, volumes, tmp_path / "model_8.pt", seed=2)
    assert sorted(reconstructed) == ["a", "b"]
    told = [message for message in messages(caplog) if "computed anew" in message]
    assert len(told) == 2
    # Each is found by itself: any one of them would have done.
    for name in ("configuration", "data_configuration", "noise_std", "num_steps", "seed", "weights_sha256"):
        assert all(re.search(rf"another .*\b{name}\b", message) for message in told), name
    assert not any("there already" in message for message in messages(caplog))


def test_another_seed_alone_is_another_prediction(mean_config, volumes, checkpoint, whole, reconstructed, copy_of):
    tiny_direct.direct_predict(copy_of(whole), mean_config, volumes, checkpoint, seed=2)
    assert sorted(reconstructed) == ["a", "b"]


def test_only_the_volume_whose_data_changed_is_computed_anew(tmp_path, mean_config, checkpoint, reconstructed, caplog):
    data = tiny_direct.write_volumes(tmp_path / "data", ["a", "b"])
    output = tiny_direct.direct_predict(tmp_path / "output", mean_config, data, checkpoint)
    tiny_direct.write_volumes(data, ["b"], seed=7)
    reconstructed.clear()
    with caplog.at_level(logging.INFO):
        tiny_direct.direct_predict(output, mean_config, data, checkpoint)
    assert reconstructed == ["b"]
    assert any("b.posterior.h5 has another data:" in message for message in messages(caplog))
    whole = tiny_direct.direct_predict(tmp_path / "whole", mean_config, data, checkpoint)
    assert_equal_content(content_of(output), content_of(whole))


@pytest.mark.parametrize("damage", ["truncated", "older"])
def test_a_file_that_cannot_be_used_is_computed_anew(
    mean_config, volumes, checkpoint, whole, reconstructed, copy_of, caplog, damage
):
    output = copy_of(whole)
    path = output / "a.posterior.h5"
    if damage == "older":
        with h5py.File(path, "r+") as file:
            del file.attrs["weights_sha256"], file["slice_number"]
    else:
        path.write_bytes(path.read_bytes()[:-1000])
    (output / "b.posterior.h5.part").write_bytes(b"half")
    with caplog.at_level(logging.INFO):
        tiny_direct.direct_predict(output, mean_config, volumes, checkpoint)
    assert reconstructed == ["a"]
    (told,) = [message for message in messages(caplog) if "computed anew" in message]
    assert str(path) in told
    assert_equal_content(content_of(output), content_of(whole))
