"""DPS and ALPS inside DIRECT: trained over noise levels, distilled, averaged, and read as posteriors."""

import json
import math

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from direct.environment import load_model_config_from_name
from direct_deepen.engines.diffusion_settings import ALPS_RULES, ALPSSettings, DPSSettings
from direct_deepen.engines.prior_engine import settings_from_config
from omegaconf import OmegaConf
from test_engine_settings import REFUSED_QUANTILES, SWITCHES, leaves

from direct_deepen.engines.trained import load_denoiser

INFINITY, NOT_A_NUMBER = float("inf"), float("nan")
SETTINGS = {"dps": DPSSettings, "alps": ALPSSettings}
ITERATIONS = 8


def configuration(name):
    """A configuration for phantoms cut down to seconds."""
    config = tiny_direct.committed(f"phantom_{name}")
    changes = {
        "validation.datasets": [],
        "inference.batch_size": 2,
        "logging.log_interval": 1,
        "training.batch_size": 2,
        "training.num_iterations": ITERATIONS,
        "training.lr_warmup_iter": 2,
        "training.validation_steps": 100,
        "training.checkpointer.checkpoint_steps": 100,
        "model.channels": [4, 6],
        "model.average_decay": 0.8,
        "model.inference.num_samples": 3,
    }
    if name == "dps":
        changes["model.inference.num_steps"] = 12
    else:
        changes |= {"model.inference.num_levels": 3, "model.inference.inner_steps": 2}
    config = tiny_direct.changed(config, changes)
    for section in (config["training"]["datasets"][0], config["inference"]["dataset"]):
        section["transforms"]["augmentation"]["pad"] = [tiny_direct.SIZE, tiny_direct.SIZE]
        section["transforms"]["masking"]["center_fractions"] = [0.08]
    return config


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, volumes):
    """The training of a diffusion."""
    folder = tmp_path_factory.mktemp("dps")
    return tiny_direct.direct_train(folder, configuration("dps"), volumes)


def student_configuration(teacher):
    return tiny_direct.changed(
        configuration("alps"),
        {
            "model.objective.teacher_configuration": str(teacher.with_suffix(".yaml")),
            "model.objective.teacher_checkpoint": str(teacher / f"model_{ITERATIONS - 1}.pt"),
        },
    )


@pytest.fixture(scope="module")
def student(tmp_path_factory, volumes, teacher):
    """The training of the energies distilled from it."""
    folder = tmp_path_factory.mktemp("alps")
    return tiny_direct.direct_train(folder, student_configuration(teacher), volumes)


@pytest.fixture(params=["dps", "alps"])
def run(request, teacher, student):
    return (teacher if request.param == "dps" else student), request.param


def config_of(run, name):
    return OmegaConf.to_container(OmegaConf.load(run.with_suffix(".yaml")))


def test_training_logs_a_finite_loss_and_the_average_follows_the_weights(run):
    folder, _ = run
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses
    assert all(math.isfinite(value) and value > 0 for value in losses)
    weights = tiny_direct.weights_of(folder, ITERATIONS - 1)
    assert int(weights["averaged.updates"]) == ITERATIONS - 1
    for key, tensor in weights.items():
        if key.startswith("averaged.module.") and tensor.ndim > 1:
            average = weights[key.replace("module", "average", 1)]
            assert not torch.equal(tensor, average), key
            assert float((tensor - average).abs().max()) < 0.1, key


def test_an_interrupted_training_becomes_the_uninterrupted_one(tmp_path, volumes, run):
    folder, name = run
    for iterations, resume in ((ITERATIONS - 2, False), (ITERATIONS, True)):
        part = tiny_direct.changed(config_of(folder, name), {"training.num_iterations": iterations})
        parts = tiny_direct.direct_train(tmp_path, part, volumes, resume=resume)
    expected = tiny_direct.weights_of(folder, ITERATIONS - 1)
    weights = tiny_direct.weights_of(parts, ITERATIONS - 1)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in weights.items())


def test_prediction_is_a_posterior_with_its_mean_as_image(tmp_path, run, volume):
    folder, name = run
    output = tiny_direct.direct_predict(
        tmp_path, config_of(folder, name), volume, folder / f"model_{ITERATIONS - 1}.pt"
    )
    with h5py.File(output / "test.posterior.h5") as file, h5py.File(output / "test.h5") as direct_file:
        mean, std = file["mean"][()], file["std"][()]
        evaluations = file["posterior_gradient_evaluations"][()]
        quantiles, attributes = file["quantiles"][()], dict(file.attrs)
        reconstruction = direct_file["reconstruction"][()]
    np.testing.assert_allclose(np.abs(mean), reconstruction, rtol=1e-5)
    assert quantiles.shape == (tiny_direct.SLICES, 5, tiny_direct.SIZE, tiny_direct.SIZE)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert attributes["num_samples"] == 3
    assert np.isfinite(std).all()
    assert (std > 0).any()
    assert (evaluations == 3 * (12 if name == "dps" else 3 * 2)).all()
    # The same seed, the same samples.
    again = tiny_direct.direct_predict(
        tmp_path / "again", config_of(folder, name), volume, folder / f"model_{ITERATIONS - 1}.pt"
    )
    with h5py.File(again / "test.posterior.h5") as file:
        np.testing.assert_array_equal(file["mean"][()], mean)


@pytest.mark.parametrize("rule", ALPS_RULES)
def test_every_rule_of_alps_reconstructs(tmp_path, student, volume, rule):
    config = tiny_direct.changed(config_of(student, "alps"), {"model.inference.rule": rule})
    output = tiny_direct.direct_predict(tmp_path, config, volume, student / f"model_{ITERATIONS - 1}.pt")
    with h5py.File(output / "test.posterior.h5") as file:
        assert np.isfinite(file["mean"][()]).all()
        # MAP is one image: no spread.
        assert (file["std"][()] == 0).all() == (rule == "map")


def test_the_teacher_is_the_average_of_the_diffusion(teacher, draw):
    denoiser = load_denoiser(teacher / f"model_{ITERATIONS - 1}.pt", teacher.with_suffix(".yaml"))
    weights = tiny_direct.weights_of(teacher, ITERATIONS - 1)
    for key, tensor in denoiser.state_dict().items():
        assert torch.equal(tensor, weights[f"averaged.average.{key}"])
    assert not denoiser.training
    assert denoiser(draw(1, 8, 8, dtype=torch.complex64), 0.3).shape == (1, 8, 8)


def test_a_student_without_a_teacher_ends_with_one_line(tmp_path, volumes, exit_with_one_line, teacher):
    with exit_with_one_line("model.objective.teacher_configuration", "allowed"):
        config = tiny_direct.changed(student_configuration(teacher), {"model.objective.teacher_configuration": ""})
        tiny_direct.direct_train(tmp_path, config, volumes)


def test_a_teacher_of_another_kind_is_refused(tmp_path, teacher, one_line_error):
    other = tiny_direct.write_configuration(tmp_path / "other.yaml", tiny_direct.configuration())
    with one_line_error("model.model_name", "deepen.systems.DPS"):
        load_denoiser(teacher / f"model_{ITERATIONS - 1}.pt", other)


# ---- Settings

SHARED = [
    ("sense_regularization", 0.0),
    ("coil_maps", "other"),
    ("objective.random_phase", 2.0),
    *(("objective.smallest_noise_std", value) for value in (0.0, INFINITY, NOT_A_NUMBER)),
    *(("objective.largest_noise_std", value) for value in (0.001, INFINITY, NOT_A_NUMBER)),
    ("inference.num_samples", 0),
    ("inference.max_images", 0),
    *(("inference.quantiles", value) for value in REFUSED_QUANTILES),
]
REFUSED = {
    "dps": [
        ("inference.num_steps", 0),
        *(("inference.base", value) for value in (1.0, INFINITY, NOT_A_NUMBER)),
        *(("inference.guidance", value) for value in (-1.0, INFINITY, NOT_A_NUMBER)),
    ],
    "alps": [
        *(("objective.least_noise_share", value) for value in (-0.1, 1.1, NOT_A_NUMBER)),
        ("inference.rule", "other"),
        *((f"inference.{name}", 0.0) for name in ("noise_std", "smallest_noise_std", "exponent", "step_size")),
        *(("inference.largest_noise_std", value) for value in (0.001, INFINITY, NOT_A_NUMBER)),
        ("inference.num_levels", 1),
        ("inference.inner_steps", 0),
    ],
}
ANY_TEXT = {"objective.teacher_configuration", "objective.teacher_checkpoint"}
GUARD = {f"objective.guard.{key}" for key in ("max_gap", "max_curvature", "interval", "max_rollbacks")}


@pytest.mark.parametrize(
    ("name", "key", "value"), [(name, *case) for name, cases in REFUSED.items() for case in [*cases, *SHARED]]
)
def test_a_value_out_of_range_is_refused_by_the_full_name_of_its_key(one_line_error, name, key, value):
    section = tiny_direct.changed(configuration(name)["model"], {key: value})
    typed = OmegaConf.merge(load_model_config_from_name(section["model_name"]), section)
    with one_line_error(f"model.{key}", "allowed"):
        settings_from_config(OmegaConf.create({"model": typed}), SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_every_key_refuses_something(name):
    tested = {key for key, _ in REFUSED[name] + SHARED} | GUARD
    assert tested == set(leaves(SETTINGS[name])) - ANY_TEXT - SWITCHES
