"""Weights are for intensities that are scaled as those of their training; others are refused in one line."""

import pytest
import tiny_direct
import torch

from direct_deepen.engines.trained import load_prior, pretrained_for


@pytest.fixture
def other(tmp_path, map_config):
    """The configuration of the checkpoint with another kind of scale, and its path."""
    config = tiny_direct.changed(map_config, {"model.intensity_scale": "object"})
    return config, tiny_direct.write_configuration(tmp_path / "other.yaml", config)


def test_prediction_with_another_scale_than_that_of_training_is_refused(
    tmp_path, other, volume, checkpoint, exit_with_one_line
):
    with exit_with_one_line("model_8.pt", "model.intensity_scale 'field_of_view'", "'object'", "that of the training"):
        tiny_direct.direct_predict(tmp_path, other[0], volume, checkpoint)


@pytest.mark.parametrize("says", [{}, {"noise_std": 0.01}], ids=["nothing", "noise"])
def test_weights_of_before_there_was_a_choice_are_for_the_field_of_view(
    tmp_path, map_config, other, checkpoint, one_line_error, says
):
    content = torch.load(checkpoint, weights_only=True) | {"__trained_with__": says}
    path = tmp_path / "old.pt"
    torch.save(content, path)
    with one_line_error("old.pt", "'field_of_view'", "'object'"):
        load_prior(path, other[1])
    load_prior(path, tiny_direct.write_configuration(tmp_path / "same.yaml", map_config))


def test_weights_that_come_with_the_package_are_for_the_field_of_view(tmp_path, map_config, other, one_line_error):
    with one_line_error("other.yaml", "model.intensity_scale is 'object'", "field_of_view"):
        pretrained_for(other[1])
    pretrained_for(tiny_direct.write_configuration(tmp_path / "same.yaml", map_config))


def test_training_notes_its_scale_in_the_checkpoint(checkpoint):
    assert torch.load(checkpoint, weights_only=True)["__trained_with__"]["intensity_scale"] == "field_of_view"
