"""The model section of a configuration: every key refuses what it cannot mean, in one line with its full name."""

import dataclasses
import inspect
import logging

import pytest
import tiny_direct
from direct.environment import load_model_config_from_name, load_model_from_name
from direct_deepen.engines.prior_engine import settings_from_config
from omegaconf import OmegaConf

from direct_deepen import ConvEnergy, QuadraticEnergy
from direct_deepen.engines.reporting import exit_on_bad_input
from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.errors import DeepenError

INFINITY, NOT_A_NUMBER = float("inf"), float("nan")

SWITCHES = {"inference.save_samples"}
"""Keys that are true or false, which DIRECT checks."""
REFUSED_QUANTILES = [[0.0, 0.5], [0.5, 1.0], [0.5, 0.5], [0.9, 0.1], [5.0, 95.0], [NOT_A_NUMBER]]

REFUSED = [
    *(("noise_std", value) for value in (0.0, -0.01, INFINITY, NOT_A_NUMBER)),
    *(("noise_start_std", value) for value in (0.0, -0.1, INFINITY, NOT_A_NUMBER)),
    *(("sense_regularization", value) for value in (0.0, -1.0, INFINITY, NOT_A_NUMBER)),
    ("coil_maps", "ESPIRiT"),
    ("objective.warm_start_iterations", -1),
    *(("objective.warm_start_noise_std", value) for value in (0.0, -0.1, INFINITY, NOT_A_NUMBER)),
    *(("objective.warm_start_energy_weight", value) for value in (-0.1, INFINITY, NOT_A_NUMBER)),
    *(("objective.data_noise_factor", value) for value in (0.0, -1.0, INFINITY, NOT_A_NUMBER)),
    *(("objective.energy_penalty", value) for value in (-0.1, INFINITY, NOT_A_NUMBER)),
    *(
        (f"objective.chains.{kind}.fraction", value)
        for kind in ("noise", "sense", "persistent")
        for value in (-0.1, 1.1, NOT_A_NUMBER)
    ),
    *((f"objective.chains.{kind}.num_steps", 0) for kind in ("noise", "sense", "persistent")),
    *((f"objective.chains.{kind}.map_steps", -1) for kind in ("noise", "sense", "persistent")),
    *(("objective.chains.step_size", value) for value in (0.0, -1.0, INFINITY, NOT_A_NUMBER)),
    ("objective.chains.max_stored", 0),
    *(("objective.random_phase", value) for value in (-0.1, 1.1, NOT_A_NUMBER)),
    *(("objective.guard.max_gap", value) for value in (0.0, -1.0, NOT_A_NUMBER)),
    *(("objective.guard.max_curvature", value) for value in (0.0, -1.0, NOT_A_NUMBER)),
    ("objective.guard.interval", 0),
    ("objective.guard.max_rollbacks", -1),
    ("inference.estimator", "MAP"),
    *(("inference.prior_weight", value) for value in (0.0, -1.0, INFINITY, NOT_A_NUMBER)),
    *(("inference.tolerance", value) for value in (0.0, -1.0, INFINITY, NOT_A_NUMBER)),
    ("inference.max_iterations", 0),
    ("inference.num_samples", 0),
    ("inference.num_steps", 0),
    *(("inference.keep", value) for value in (0, 9)),
    ("inference.start", "zero"),
    *(("inference.step_size", value) for value in (0.0, -1.0, INFINITY, NOT_A_NUMBER)),
    *(("inference.preconditioner", value) for value in (0.0, -1.0, INFINITY, NOT_A_NUMBER)),
    ("inference.convolutions", "float16"),
    ("inference.max_images", 0),
    *(("inference.quantiles", value) for value in REFUSED_QUANTILES),
]
"""Keys of the model section, and values that mean nothing there (with 8 steps, 9 cannot be kept)."""


def section_with(changes):
    """The model section as DIRECT types it."""
    section = tiny_direct.changed(tiny_direct.configuration()["model"], changes)
    typed = OmegaConf.merge(load_model_config_from_name(section["model_name"]), section)
    return OmegaConf.create({"model": typed})


def leaves(settings_type, prefix=""):
    """Full names of all keys of a settings class, its sections' keys among them."""
    for field in dataclasses.fields(settings_type):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(default):
            yield from leaves(type(default), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_value_out_of_range_is_refused_by_the_full_name_of_its_key(one_line_error, key, value):
    with one_line_error(f"model.{key}", "allowed"):
        settings_from_config(section_with({key: value}), DeepenSettings)


def test_every_key_of_the_settings_refuses_something():
    assert {key for key, _ in REFUSED} == set(leaves(DeepenSettings)) - SWITCHES


def test_chains_need_a_start(one_line_error):
    nothing = {f"objective.chains.{kind}.fraction": 0.0 for kind in ("noise", "sense", "persistent")}
    with one_line_error("model.objective.chains", "fraction", "allowed: > 0"):
        settings_from_config(section_with(nothing), DeepenSettings)


def test_what_the_configuration_says_arrives_in_the_settings():
    settings = settings_from_config(
        section_with(
            {
                "noise_std": 0.02,
                "objective.chains.persistent.num_steps": 17,
                "inference.step_size": 0.5,
                "inference.keep": 2,
            }
        ),
        DeepenSettings,
    )
    assert settings.noise_std == 0.02
    assert settings.objective.chains.persistent.num_steps == 17
    assert settings.inference.step_size == 0.5
    assert settings.inference.keep == 2


@pytest.mark.parametrize("energy_type", [QuadraticEnergy, ConvEnergy])
def test_the_keys_of_a_model_are_those_of_its_network_and_of_the_engine(energy_type):
    name = f"deepen.energies.{energy_type.__name__}"
    network = set(inspect.signature(energy_type.__init__).parameters) - {"self"}
    engine = {field.name for field in dataclasses.fields(DeepenSettings)}
    keys = {field.name for field in dataclasses.fields(load_model_config_from_name(name))}
    assert keys == network | engine | {"model_name", "engine_name"}
    # DIRECT hands over the keys that the constructor names, and drops the others with a warning.
    assert network <= set(inspect.signature(load_model_from_name(name).__init__).parameters)


# ---- Inside DIRECT's command


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.noise_std": -1.0}, ["model.noise_std", "-1.0"]),
        ({"model.inference.start": "zero"}, ["model.inference.start", "zero"]),
        ({"model.activation": "tanh"}, ["activation", "tanh"]),
        ({"model.num_layers": 1}, ["num_layers", "1"]),
        ({"model.hidden_channels": 0}, ["hidden_channels", "0"]),
        ({"model.weight": 0.0}, ["weight", "0.0"]),
        ({"physics.forward_operator": "fft2(centered=False)"}, ["physics.forward_operator", "centered"]),
    ],
)
def test_a_bad_setting_ends_the_command_with_exit_code_2_and_one_line(tmp_path, exit_with_one_line, changes, words):
    with exit_with_one_line(*words, "allowed"):
        tiny_direct.build_engine(tmp_path, tiny_direct.changed(tiny_direct.configuration(), changes))


def test_without_any_log_the_one_line_goes_to_the_error_output(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.raises(SystemExit) as caught, exit_on_bad_input():
        raise DeepenError("model.noise_std is 0.0; allowed: a finite number > 0")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "direct-deepen: error: model.noise_std is 0.0; allowed: a finite number > 0\n"


def test_an_error_that_is_no_bad_input_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="out of memory"), exit_on_bad_input():
        raise RuntimeError("out of memory")
