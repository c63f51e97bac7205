"""Trained weights for data of another noise, by one key of the configuration."""

import h5py
import pytest
import tiny_direct

from direct_deepen.engines.settings import system_of
from direct_deepen.engines.trained import load_trained


def test_prediction_with_the_noise_of_training_changed_is_refused(
    tmp_path, map_config, volume, checkpoint, exit_with_one_line
):
    config = tiny_direct.changed(map_config, {"model.noise_std": 0.05})
    with exit_with_one_line("model_8.pt", "model.noise_std 0.01", "0.05", "model.inference.noise_std"):
        tiny_direct.direct_predict(tmp_path, config, volume, checkpoint)


def test_prediction_has_the_weight_and_the_noise_of_the_data(
    tmp_path, mean_config, mean_prediction, volume, checkpoint
):
    config = tiny_direct.changed(mean_config, {"model.inference.noise_std": 0.05})
    other = tiny_direct.direct_predict(tmp_path, config, volume, checkpoint)
    path = tiny_direct.write_configuration(tmp_path / "other.yaml", config)
    with h5py.File(mean_prediction / "test.posterior.h5") as before, h5py.File(other / "test.posterior.h5") as after:
        assert (before.attrs["noise_std"], after.attrs["noise_std"]) == (0.01, 0.05)
        # Chains of eight steps are still near their start, but their noise is five times as large.
        assert after["std_complex"][()].mean() > 3 * before["std_complex"][()].mean()
        # C of the same image would be larger by 24 E; the minimum is lower than that and above that of E alone.
        assert (after["cost"][()] > before["cost"][()]).all()
    energy, inference = load_trained(checkpoint, path), system_of(config["model"]).inference
    ((weight, _),) = inference.weighted(energy).terms
    assert weight == pytest.approx(25)
