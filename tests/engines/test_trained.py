"""Energies trained by DIRECT, loaded for use in Python."""

import pytest
import tiny_direct
import torch

from direct_deepen.engines.trained import load_prior, load_trained
from direct_deepen.priors import Denoiser


@pytest.fixture
def configuration(tmp_path, map_config):
    return tiny_direct.write_configuration(tmp_path / "configuration.yaml", map_config)


def test_it_is_the_energy_that_direct_trained(checkpoint, configuration):
    energy = load_trained(checkpoint, configuration)
    assert not energy.training
    weights = torch.load(checkpoint, weights_only=True)["model"]
    assert {name: tensor.tolist() for name, tensor in energy.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in weights.items()
    }
    assert energy.prior_noise_std == 0.01
    image = torch.randn(2, 12, 10, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert bool((energy(image) > 0).all())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.model_name": "unet.unet_2d.Unet2dModel"}, ["unet.unet_2d.Unet2dModel", "deepen.priors"]),
        ({"model.no_such_key": 1}, ["changed.yaml", "no_such_key"]),
        ({"model.hidden_channels": 7}, ["weights of another model", "shape"]),
        ({"model.noise_std": 0.05}, ["model_8.pt", "trained with", "0.01", "0.05", "model.inference.noise_std"]),
        ({"model.weight": -1.0}, ["weight", "-1.0"]),
        ({"model.inference": {"name": "map", "tolerance": -1.0}}, ["model.inference.tolerance", "-1.0"]),
        ({"model.model_name": "deepen.priors.Energy"}, ["changed.yaml", "deepen.priors.Energy"]),
    ],
)
def test_another_model_is_refused_by_the_name_of_what_differs(
    tmp_path, map_config, checkpoint, one_line_error, changes, words
):
    path = tiny_direct.write_configuration(tmp_path / "changed.yaml", tiny_direct.changed(map_config, changes))
    with one_line_error(*words):
        load_trained(checkpoint, path)


def test_a_prior_that_is_no_energy_is_loaded_as_a_prior_alone(tmp_path, one_line_error):
    path = tiny_direct.write_configuration(tmp_path / "denoiser.yaml", tiny_direct.configuration("phantom_pnp_ista"))
    torch.save({"model": Denoiser(hidden_channels=4, num_layers=3, activation="relu").state_dict()}, tmp_path / "a.pt")
    assert load_prior(tmp_path / "a.pt", path)(torch.ones(1, 8, 8, dtype=torch.complex64)).shape == (1, 8, 8)
    with one_line_error("denoiser.yaml", "Denoiser", "allowed"):
        load_trained(tmp_path / "a.pt", path)


def test_missing_files_are_named(tmp_path, checkpoint, configuration, one_line_error):
    with one_line_error("none.yaml", "no such file"):
        load_trained(checkpoint, tmp_path / "none.yaml")
    with one_line_error("none.pt", "no such checkpoint"):
        load_trained(tmp_path / "none.pt", configuration)
