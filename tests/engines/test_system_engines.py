"""The systems that DEEPEN is compared with: each trains, predicts, and is the combination that its engine names."""

import dataclasses
import inspect
import json
import math

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from direct.environment import load_model_config_from_name, load_model_from_name
from direct.utils.events import EventStorage
from direct_deepen.engines.deepen_engine import DeepenEngine
from direct_deepen.engines.diffusion_engines import ALPSEngine, DPSEngine
from direct_deepen.engines.prior_engine import PriorEngine, settings_from_config
from direct_deepen.engines.system_settings import ELDERSettings, MoLSettings, MuSESettings, PnPISTASettings
from omegaconf import OmegaConf
from test_engine_settings import leaves

from direct_deepen import priors
from direct_deepen.data.batch import problem_from_batch, reference_image
from direct_deepen.engines import system_engines
from direct_deepen.engines.plugin import systems
from direct_deepen.inference import equilibrium, mm_map, proximal_iteration, unrolled_gradient
from direct_deepen.physics import sense

INFINITY, NOT_A_NUMBER = float("inf"), float("nan")

SETTINGS = {"muse": MuSESettings, "pnp_ista": PnPISTASettings, "elder": ELDERSettings, "mol": MoLSettings}
MODELS = {"muse": systems.MuSE, "pnp_ista": systems.PnPISTA, "elder": systems.ELDER, "mol": systems.MoL}
SYSTEMS = tuple(SETTINGS)

CHANGES = {
    "muse": {"model.inference.max_iterations": 15},
    "pnp_ista": {"model.inference.max_iterations": 9},
    "mol": {"model.inference.data_weight_factor": 0.5},
}


def configuration(name, **arguments):
    config = tiny_direct.configuration(f"phantom_{name}", **arguments)
    return tiny_direct.changed(config, CHANGES.get(name, {}))


def test_every_engine_of_the_package_is_tested():
    def subclasses(kind):
        return set(kind.__subclasses__()).union(*(subclasses(child) for child in kind.__subclasses__()))

    names = {kind.__name__ for kind in subclasses(PriorEngine) if not inspect.isabstract(kind)}
    here = {f"{model.__name__}Engine" for model in MODELS.values()}
    # The others in test_engine_*.py and test_diffusion_engines.py.
    assert names == {DeepenEngine.__name__, DPSEngine.__name__, ALPSEngine.__name__} | here


# ---- Training and prediction by DIRECT


@pytest.fixture(scope="module", params=SYSTEMS)
def trained(request, tmp_path_factory, volumes):
    """A system, its training and its prediction."""
    folder = tmp_path_factory.mktemp(request.param)
    config = configuration(request.param, iterations=8)
    run = tiny_direct.direct_train(folder, config, volumes)
    output = tiny_direct.direct_predict(folder, config, volumes, run / "model_7.pt")
    return request.param, config, run, output


def test_an_interrupted_training_becomes_the_uninterrupted_one(tmp_path, volumes, trained):
    _, config, run, _ = trained
    for iterations, resume in ((6, False), (8, True)):
        part = tiny_direct.changed(config, {"training.num_iterations": iterations})
        parts = tiny_direct.direct_train(tmp_path, part, volumes, resume=resume)
    expected = tiny_direct.weights_of(run, 7)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tiny_direct.weights_of(parts, 7).items())


def test_training_logs_a_finite_loss_and_changes_every_weight(trained, tmp_path):
    _, config, run, _ = trained
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 3  # DIRECT logs from iteration 5 on
    assert all(math.isfinite(value) and value > 0 for value in losses)
    assert lines[-1]["train/rollbacks"] == 0
    before = tiny_direct.build_environment(tmp_path, config).engine.model.state_dict()
    after = tiny_direct.weights_of(run, 7)
    for key, tensor in before.items():
        assert not torch.equal(tensor, after[key]), key


def test_prediction_is_the_inference_of_the_system_with_the_trained_prior(trained, volumes):
    name, config, run, output = trained
    typed = OmegaConf.create({"model": OmegaConf.merge(
        load_model_config_from_name(config["model"]["model_name"]), config["model"]
    )})  # fmt: skip
    inference = settings_from_config(typed, SETTINGS[name]).inference
    environment = tiny_direct.build_environment(output / "again", config)
    environment.engine.model.load_state_dict(tiny_direct.weights_of(run, 7))
    prior = environment.engine.prior
    with h5py.File(output / "a.posterior.h5") as file, h5py.File(output / "a.h5") as direct_file:
        image, scale = file["image"][()], file["scale"][()]
        assert {"seconds"} < set(file) - {"image", "scale"}
        assert all(dataset.shape[0] == tiny_direct.SLICES for dataset in file.values())
        reconstruction = direct_file["reconstruction"][()]
    np.testing.assert_allclose(np.abs(image), reconstruction, rtol=1e-5)
    for sample in tiny_direct.training_samples(environment, volumes):
        if not sample["filename"].endswith("a.h5"):
            continue
        batch = torch.utils.data.default_collate([sample])
        problem = problem_from_batch(batch)
        A, b = problem.A, problem.masked_kspace
        start = sense(A, b, regularization=0.01)
        with torch.no_grad():
            if name == "muse":
                energy = priors.SumEnergy([(inference.prior_weight, prior)])
                expected = mm_map(A, b, energy, init=start, max_iterations=15).image
            elif name == "pnp_ista":
                expected = proximal_iteration(
                    A, b, prior, step_size=inference.step_size, init=start, max_iterations=9
                ).image
            elif name == "elder":
                expected = unrolled_gradient(A, b, prior, step_size=float(prior.step_size()), init=start)
            else:
                expected = equilibrium(A, b, prior, data_weight=0.5 * float(prior.data_weight()), init=start).image
        found = torch.from_numpy(image[sample["slice_no"]] / scale[sample["slice_no"]])
        # MoL: the limit of its iteration, to the tolerance of the configuration.
        tolerance = 5e-3 if name == "mol" else 1e-4
        assert float((found - expected[0]).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_gradient_of_an_update_is_that_of_finite_differences(tmp_path, name, volumes):
    config = tiny_direct.changed(
        configuration(name),
        # The implicit gradient holds at the fixed point, so that has to be reached; the direction in which the barrier
        # looks is held fixed, so that its gradient is tested by itself.
        {"model.inference.tolerance": 1e-7, "model.objective.barrier_weight": 1e-12} if name == "mol" else {},
    )
    environment = tiny_direct.build_environment(tmp_path, config)
    engine = environment.engine
    engine.model.double()
    batch = torch.utils.data.default_collate(tiny_direct.training_samples(environment, volumes)[:2])
    batch = {key: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
             for key, value in batch.items()}  # fmt: skip
    problem = problem_from_batch(batch)
    reference = reference_image(batch, problem)

    def loss():
        with EventStorage(0):
            return engine.loss(reference, problem, 0, torch.Generator().manual_seed(3))[0]

    loss().backward()
    generator = torch.Generator().manual_seed(1)
    directions = {
        parameter: torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        for parameter in engine.model.parameters()
    }
    slope = sum(float((parameter.grad * direction).sum()) for parameter, direction in directions.items())
    values = []
    for sign in (1, -1):
        for parameter, direction in directions.items():
            parameter.data.add_(sign * 1e-6 * direction)
        values.append(float(loss().detach()))
        for parameter, direction in directions.items():
            parameter.data.sub_(sign * 1e-6 * direction)
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3)


def test_a_loss_that_is_not_finite_never_reaches_the_weights(tmp_path, volumes, monkeypatch, caplog):
    original = system_engines.denoising_loss

    def once(*args, **kwargs):
        monkeypatch.setattr(system_engines, "denoising_loss", original)
        return original(*args, **kwargs) * float("nan")

    monkeypatch.setattr(system_engines, "denoising_loss", once)
    run = tiny_direct.direct_train(tmp_path, configuration("pnp_ista", iterations=8), volumes)
    assert any("(rollback 1)" in record.getMessage() for record in caplog.records)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tiny_direct.weights_of(run, 7).values())


# ---- Settings


REFUSED = {
    "muse": [
        *(("objective.max_noise_std", value) for value in (0.0, INFINITY, NOT_A_NUMBER)),
        *(("objective.image_energy_weight", value) for value in (-1.0, INFINITY, NOT_A_NUMBER)),
        *(("inference.prior_weight", value) for value in (0.0, INFINITY, NOT_A_NUMBER)),
        *(("inference.tolerance", value) for value in (0.0, NOT_A_NUMBER)),
        ("inference.max_iterations", 0),
    ],
    "pnp_ista": [
        *(("objective.noise_std", value) for value in (0.0, INFINITY, NOT_A_NUMBER)),
        *(("inference.step_size", value) for value in (0.0, 2.0, NOT_A_NUMBER)),
        *(("inference.tolerance", value) for value in (0.0, NOT_A_NUMBER)),
        ("inference.max_iterations", 0),
    ],
    "elder": [("inference.num_steps", 0)],
    "mol": [
        *(("objective.monotonicity", value) for value in (0.0, 1.0, NOT_A_NUMBER)),
        *(("objective.barrier_weight", value) for value in (0.0, INFINITY, NOT_A_NUMBER)),
        ("objective.barrier_iterations", 0),
        *(("inference.damping", value) for value in (0.0, 1.1, NOT_A_NUMBER)),
        *(("inference.data_weight_factor", value) for value in (0.0, INFINITY, NOT_A_NUMBER)),
        *(("inference.tolerance", value) for value in (0.0, NOT_A_NUMBER)),
        ("inference.max_iterations", 0),
    ],
}
SHARED = [("sense_regularization", 0.0), ("coil_maps", "other"), ("objective.random_phase", 2.0)]
GUARD = {f"objective.guard.{key}" for key in ("max_gap", "max_curvature", "interval", "max_rollbacks")}


@pytest.mark.parametrize(
    ("name", "key", "value"), [(name, *case) for name, cases in REFUSED.items() for case in [*cases, *SHARED]]
)
def test_a_value_out_of_range_is_refused_by_the_full_name_of_its_key(one_line_error, name, key, value):
    section = tiny_direct.changed(configuration(name)["model"], {key: value})
    typed = OmegaConf.merge(load_model_config_from_name(section["model_name"]), section)
    with one_line_error(f"model.{key}", "allowed"):
        settings_from_config(OmegaConf.create({"model": typed}), SETTINGS[name])


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_key_refuses_something_and_the_model_takes_the_keys_of_its_prior(name):
    assert {key for key, _ in REFUSED[name] + SHARED} | GUARD == set(leaves(SETTINGS[name]))
    model_name = configuration(name)["model"]["model_name"]
    keys = {field.name for field in dataclasses.fields(load_model_config_from_name(model_name))}
    arguments = set(inspect.signature(load_model_from_name(model_name).__init__).parameters)
    network = arguments - {"self", "engine_settings"}
    settings = {field.name for field in dataclasses.fields(SETTINGS[name])}
    assert keys == network | settings | {"model_name", "engine_name"}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("elder", "step_size", 0.0),
        ("mol", "data_weight", -1.0),
        ("muse", "num_layers", 1),
        ("pnp_ista", "activation", "x"),
    ],
)
def test_a_bad_network_ends_the_command_with_one_line(tmp_path, exit_with_one_line, name, key, value):
    config = tiny_direct.changed(configuration(name), {f"model.{key}": value})
    with exit_with_one_line(key, str(value), "allowed"):
        tiny_direct.build_engine(tmp_path, config)
