"""Checkpoints and devices that do not fit: one line that names the file, before anything is computed."""

import shutil

import pytest
import tiny_direct
import torch

OTHERS = {
    "channels": {"model.hidden_channels": 6},
    "more layers": {"model.num_layers": 4},
}


def pooled(num_layers):
    """An energy whose layers all look alike, so that those of a deeper network fit a shallower one."""
    config = tiny_direct.configuration(iterations=6)
    model = {key: value for key, value in config["model"].items() if key != "weight"}
    model |= {"model_name": "deepen.priors.ConvEnergy", "head": "pooled", "activation": "relu"}
    return tiny_direct.changed(config, {"model": model | {"num_layers": num_layers}})


@pytest.mark.parametrize("kind", OTHERS)
def test_prediction_with_the_weights_of_another_network_names_the_checkpoint(
    tmp_path, map_config, volumes, checkpoint, exit_with_one_line, kind
):
    with exit_with_one_line(str(checkpoint), "another model"):
        tiny_direct.direct_predict(tmp_path, tiny_direct.changed(map_config, OTHERS[kind]), volumes, checkpoint)
    assert not list(tmp_path.glob("*.h5"))


def test_the_weights_of_a_deeper_network_do_not_pass_for_a_shallower_one(tmp_path, volumes, exit_with_one_line):
    # DIRECT itself only warns of weights that the model lacks.
    run = tiny_direct.direct_train(tmp_path, pooled(4), volumes)
    with exit_with_one_line(str(run / "model_5.pt"), "another model", "features.6.weight"):
        tiny_direct.direct_predict(tmp_path / "output", pooled(3), volumes, run / "model_5.pt")


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_a_missing_or_damaged_checkpoint_is_named(tmp_path, map_config, volumes, exit_with_one_line, content):
    path = tmp_path / "model_7.pt"
    if content is not None:
        path.write_bytes(content)
    with exit_with_one_line(str(path), "checkpoint"):
        tiny_direct.direct_predict(tmp_path / "output", map_config, volumes, path)


def test_a_file_of_torch_that_is_no_checkpoint_is_named(tmp_path, map_config, volumes, exit_with_one_line):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model_7.pt")
    with exit_with_one_line(str(tmp_path / "model_7.pt"), "no checkpoint of DIRECT"):
        tiny_direct.direct_predict(tmp_path / "output", map_config, volumes, tmp_path / "model_7.pt")


def test_resuming_another_network_names_the_checkpoint(tmp_path, volumes, trained, exit_with_one_line):
    shutil.copytree(trained, tmp_path / "run")
    config = tiny_direct.changed(tiny_direct.configuration(iterations=12), OTHERS["channels"])
    with exit_with_one_line(str(tmp_path / "run" / "model_8.pt"), "another model"):
        tiny_direct.direct_train(tmp_path, config, volumes, resume=True)


def test_resuming_from_a_checkpoint_that_is_gone_names_it(tmp_path, volumes, trained, exit_with_one_line):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "model_8.pt").unlink()
    with exit_with_one_line(str(tmp_path / "run" / "model_8.pt"), "no such checkpoint"):
        tiny_direct.direct_train(tmp_path, tiny_direct.configuration(iterations=12), volumes, resume=True)


def test_initialising_from_another_network_names_the_checkpoint(tmp_path, volumes, checkpoint, exit_with_one_line):
    config = tiny_direct.changed(tiny_direct.configuration(), OTHERS["channels"])
    with exit_with_one_line(str(checkpoint), "another model"):
        tiny_direct.direct_train(tmp_path, config, volumes, initialization=checkpoint)


def test_training_begins_with_the_weights_of_an_initialisation(tmp_path, volumes, checkpoint):
    config = tiny_direct.changed(tiny_direct.configuration(iterations=6), {"training.lr": 1e-12})
    run = tiny_direct.direct_train(tmp_path, config, volumes, initialization=checkpoint)
    before = torch.load(checkpoint, weights_only=True)["model"]
    for name, tensor in tiny_direct.weights_of(run, 5).items():
        torch.testing.assert_close(tensor, before[name])


# ---- Devices


@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_cuda_device_that_is_not_there_ends_the_command_with_one_line(
    tmp_path, map_config, volumes, checkpoint, exit_with_one_line, monkeypatch, command
):
    # DIRECT's --device is cuda by default.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with exit_with_one_line("device is 'cuda'", "no CUDA device", "--device cpu"):
        if command == "train":
            tiny_direct.direct_train(tmp_path, map_config, volumes, device="cuda")
        else:
            tiny_direct.direct_predict(tmp_path, map_config, volumes, checkpoint, device="cuda")


def test_a_cuda_device_beyond_the_last_ends_the_command_with_one_line(
    tmp_path, map_config, volumes, exit_with_one_line, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with exit_with_one_line("device is 'cuda:2'", "only 2", "--device cpu"):
        tiny_direct.direct_train(tmp_path, map_config, volumes, device="cuda:2")
