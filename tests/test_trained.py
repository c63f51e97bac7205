"""Energies trained by DIRECT, loaded for use in Python."""

import sys
from pathlib import Path

import pytest
import torch

from direct_deepen.engines.trained import load_trained

sys.path.insert(0, str(Path(__file__).parent / "engines"))

import tiny_direct


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = tiny_direct.write_volumes(folder / "data", ["a", "b"])
    config = tiny_direct.configuration(iterations=6)
    path = tiny_direct.write_configuration(folder / "configuration.yaml", config)
    return tiny_direct.direct_train(folder, config, data), path


def test_it_is_the_energy_that_direct_trained(run):
    trained, configuration = run
    checkpoint = max(trained.glob("model_*.pt"))
    energy = load_trained(checkpoint, configuration)
    assert not energy.training
    weights = torch.load(checkpoint, weights_only=True)["model"]
    assert {name: tensor.tolist() for name, tensor in energy.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in weights.items()
    }
    image = torch.randn(2, 12, 10, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert bool((energy(image) > 0).all())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.model_name": "unet.unet_2d.Unet2dModel"}, ["model.model_name", "deepen.energies.QuadraticEnergy"]),
        ({"model.no_such_key": 1}, ["changed.yaml", "no_such_key"]),
        ({"model.hidden_channels": 7}, ["weights of another model", "shape"]),
        ({"model.weight": -1.0}, ["weight", "-1.0"]),
    ],
)
def test_another_model_is_refused_by_the_name_of_what_differs(run, tmp_path, one_line_error, changes, words):
    trained, _ = run
    config = tiny_direct.configuration(iterations=6)
    for key, value in changes.items():
        config["model"][key.removeprefix("model.")] = value
    path = tiny_direct.write_configuration(tmp_path / "changed.yaml", config)
    with one_line_error(*words):
        load_trained(max(trained.glob("model_*.pt")), path)


def test_missing_files_are_named(run, tmp_path, one_line_error):
    trained, configuration = run
    with one_line_error("none.yaml", "no such configuration"):
        load_trained(max(trained.glob("model_*.pt")), tmp_path / "none.yaml")
    with one_line_error("none.pt", "no such checkpoint"):
        load_trained(tmp_path / "none.pt", configuration)
