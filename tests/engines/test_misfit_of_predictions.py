"""Slices that a prediction does not vouch for: the log, the file, and the energies that training saw."""

import h5py
import pytest
import tiny_direct
import torch

from direct_deepen.engines.checkpoints import training_energy_of
from direct_deepen.posterior.misfit import LIMITS, energy_of_object


def with_energy(checkpoint, path, seen):
    torch.save(torch.load(checkpoint, weights_only=True) | {"__training_energy__": seen}, path)
    return path


def test_the_log_has_one_warning_a_volume_that_names_its_slices(tmp_path, map_config, volumes, checkpoint, caplog):
    seen = {"count": 10, "mean": 1e-12, "variance": 1e-26}
    known = with_energy(checkpoint, tmp_path / "model_0.pt", seen)
    output = tiny_direct.direct_predict(tmp_path / "out", map_config, volumes, known)
    warnings = [record.getMessage() for record in caplog.records if "not to be trusted" in record.getMessage()]
    assert sorted(text.partition(":")[0] for text in warnings) == ["a.h5", "b.h5"]
    assert all(
        "energy_per_pixel up to " in text
        and "above 2e-12 (what training never saw, or more noise), in slices 1, 2" in text
        for text in warnings
    )
    with h5py.File(output / "a.posterior.h5") as file:
        assert file.attrs["training_energy"].tolist() == pytest.approx([1e-12, 1e-13])
        assert {*LIMITS, "energy_per_pixel"} <= set(file)


def test_a_checkpoint_without_energies_compares_none(tmp_path, map_config, volumes, checkpoint):
    old = torch.load(checkpoint, weights_only=True)
    old.pop("__training_energy__", None)
    torch.save(old, tmp_path / "model_0.pt")
    assert training_energy_of(tmp_path / "model_0.pt") is None
    output = tiny_direct.direct_predict(tmp_path / "out", map_config, volumes, tmp_path / "model_0.pt")
    with h5py.File(output / "a.posterior.h5") as file:
        assert "training_energy" not in file.attrs


def test_running_moments_are_mean_and_variance_of_the_energies_of_objects(tmp_path, map_config):
    engine = tiny_direct.build_engine(tmp_path, map_config)
    images = torch.randn(6, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    for iteration in (0, 5, 10):
        # Iteration 5 is not looked at.
        engine.remember_energy(iteration, images[:3] if iteration == 0 else images[3:])
    energies = energy_of_object(engine.prior, images).double()
    seen = engine._energy
    assert seen["count"] == 6
    assert seen["mean"] == pytest.approx(float(energies.mean()), rel=1e-5)
    assert seen["variance"] == pytest.approx(float(energies.var(correction=0)), rel=1e-3)
