"""Every system trains, goes on, and predicts: each is the objective and the inference that its configuration names."""

import json
import math
import shutil
from functools import cache
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from torch.utils.data import default_collate

from direct_deepen.data.batch import problem_from_batch, reference_image
from direct_deepen.engines.reconstruction import image_generator
from direct_deepen.engines.trained import load_denoiser
from direct_deepen.inference import (
    Chains,
    LangevinStep,
    annealed_langevin,
    diffusion_posterior_sampling,
    equilibrium,
    inferences,
    langevin,
    mm_map,
    power_schedule,
    proximal_iteration,
    unrolled_gradient,
    variance_exploding_schedule,
)
from direct_deepen.inference.samplers import ALPS_RULES
from direct_deepen.objectives import Update, objectives
from direct_deepen.physics import sense
from direct_deepen.priors import at_noise

MAP_ITERATIONS = tiny_direct.SMALL["map"]["max_iterations"]
LAST, CHECKPOINT = 7, 5
"""The last iteration of a training, and that of the checkpoint before it."""


def mean_of_chains(A, b, prior, _, generator):
    image = mm_map(A, b, prior, max_iterations=MAP_ITERATIONS).image
    options = {"num_samples": 3, "num_steps": 12, "keep": 10, "init": image, "generator": generator}
    return langevin(A, b, prior, noise_std=0.01, **options).images.mean(dim=0)


def mean_of_fast_chains(A, b, prior, _, generator):
    energy = at_noise(prior, 0.01)
    samples = langevin(
        A,
        b,
        energy,
        noise_std=0.01,
        init=mm_map(A, b, energy, max_iterations=MAP_ITERATIONS).image,
        generator=generator,
        chains=Chains(4, 12, keep=10, antithetic=True),
        step=LangevinStep(preconditioner="curvature", averaged_noise=True, momentum=0.8),
    )
    return samples.images.mean(dim=0)


def mean_of_diffusions(A, b, prior, _, generator):
    levels = variance_exploding_schedule(12, 25.0)
    options = {"guidance": 1.0, "num_samples": 3, "max_images": 3, "generator": generator}
    return diffusion_posterior_sampling(A, b, prior.averaged.average, noise_levels=levels, **options).images.mean(dim=0)


def mean_of_annealed_chains(A, b, prior, _, generator):
    levels = power_schedule(1.0, 0.01, 3, exponent=5.0)
    options = {"inner_steps": 2, "num_samples": 3, "max_images": 3, "generator": generator}
    energy_at = prior.averaged.average.at
    return annealed_langevin(A, b, energy_at, noise_std=0.007, noise_levels=levels, **options).images.mean(dim=0)


SYSTEMS = {
    "deepen": ("demo_deepen", mean_of_chains, 1e-3),
    "deepen_of_any_noise": (
        "brain_deepen",
        mean_of_fast_chains,
        1e-3,
    ),
    "muse": (
        "phantom_muse",
        lambda A, b, prior, *_: mm_map(A, b, prior, max_iterations=MAP_ITERATIONS).image,
        1e-4,
    ),
    "pnp_ista": (
        "phantom_pnp_ista",
        lambda A, b, prior, start, _: (
            proximal_iteration(A, b, prior, step_size=1.0, init=start, max_iterations=9).image
        ),
        1e-4,
    ),
    "elder": (
        "phantom_elder",
        lambda A, b, prior, start, _: unrolled_gradient(
            A, b, prior, step_size=float(prior.step_size["logarithm"].exp()), init=start
        ),
        1e-4,
    ),
    # The limit of an iteration, to the tolerance of the configuration.
    "mol": (
        "phantom_mol",
        lambda A, b, prior, start, _: (
            equilibrium(A, b, prior, data_weight=0.5 * float(prior.data_weight["logarithm"].exp()), init=start).image
        ),
        5e-3,
    ),
    "dps": ("phantom_dps", mean_of_diffusions, 1e-4),
    "alps": ("phantom_alps", mean_of_annealed_chains, 1e-3),
}
"""Every system: its configuration, what its prediction is by the functions of the package, and how exactly."""


@pytest.fixture(scope="module")
def trained_system(tmp_path_factory, volumes):
    """``trained_system(name)``: configuration and folder of the training of a system."""

    @cache
    def train(name):
        config = tiny_direct.configuration(SYSTEMS[name][0], iterations=LAST + 1)
        config = tiny_direct.changed(config, {"training.checkpointer.checkpoint_steps": CHECKPOINT})
        if name == "deepen":
            config = tiny_direct.persistent(tiny_direct.posterior(config))
        if name == "deepen_of_any_noise":
            # One of its masks, the scale of the others, and the noise of the configuration: the images are too small to
            # estimate it from, or to have rings.
            changes = {"model.inference.noise_level": "given", "model.intensity_scale": "field_of_view"}
            changes["model.inference.noise_by_ring"] = False
            datasets = config["training"]["datasets"][:1]
            config = tiny_direct.changed(config, {"training.datasets": datasets, **changes})
            config["model"]["inference"] = {"name": "fast"} | tiny_direct.SMALL["fast"]
        if name == "alps":
            teacher = train("dps")
            files = {"teacher_configuration": teacher.file, "teacher_checkpoint": teacher.checkpoint}
            config = tiny_direct.changed(config, {f"model.objective.{key}": str(path) for key, path in files.items()})
        run = tiny_direct.direct_train(tmp_path_factory.mktemp(name), config, volumes)
        file, checkpoint = run.with_suffix(".yaml"), run / f"model_{LAST}.pt"
        return SimpleNamespace(name=name, config=config, run=run, file=file, checkpoint=checkpoint)

    return train


@pytest.fixture(params=SYSTEMS)
def system(request, trained_system):
    return trained_system(request.param)


def test_every_objective_and_every_inference_is_part_of_a_system(trained_system):
    sections = [trained_system(name).config["model"] for name in SYSTEMS]
    assert {section["objective"]["name"] for section in sections} == set(objectives.names)
    assert {section["inference"]["name"] for section in sections} == set(inferences.names)


# ---- Training


def test_training_logs_a_finite_loss_and_changes_every_weight(system, tmp_path):
    lines = [json.loads(line) for line in (system.run / "metrics.json").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    # DIRECT logs from iteration 5 on.
    assert len(losses) == 3
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert lines[-1]["train/rollbacks"] == 0
    before = tiny_direct.build_engine(tmp_path, system.config).model.state_dict()
    after = tiny_direct.weights_of(system.run, LAST)
    assert [key for key, tensor in before.items() if torch.equal(tensor, after[key])] == []


def test_what_an_inference_learns_is_logged(trained_system):
    for name, learned in {"elder": "step_size", "mol": "data_weight"}.items():
        run = trained_system(name).run
        *_, line = map(json.loads, (run / "metrics.json").read_text().splitlines())
        # Logged before the last step, which is at most the learning rate in the logarithm.
        final = float(tiny_direct.weights_of(run, LAST)[f"{learned}.logarithm"].exp())
        assert line[f"train/learned_{learned}"] == pytest.approx(final, rel=2 * line["lr"])


@pytest.mark.parametrize("name", ["dps", "alps"])
def test_the_average_follows_the_weights(trained_system, name):
    weights = tiny_direct.weights_of(trained_system(name).run, LAST)
    assert int(weights["averaged.updates"]) == LAST
    for key, tensor in weights.items():
        if key.startswith("averaged.module.") and tensor.ndim > 1:
            distance = float((tensor - weights[key.replace("module", "average", 1)]).abs().max())
            assert 0 < distance < 0.1, key


def test_an_interrupted_training_becomes_the_uninterrupted_one(tmp_path, volumes, system):
    run = shutil.copytree(system.run, tmp_path / "run")
    for path in run.glob(f"*_{LAST}*.pt"):
        path.unlink()
    (run / "last_model.txt").write_text(str(CHECKPOINT))
    tiny_direct.direct_train(tmp_path, system.config, volumes, resume=True)
    weights, expected = (tiny_direct.weights_of(folder, LAST) for folder in (run, system.run))
    assert [key for key, tensor in weights.items() if not torch.equal(tensor, expected[key])] == []


EXACTLY = {
    # The implicit gradient holds at the fixed point, so that has to be reached; the direction in which the barrier
    # looks is held fixed, so that its gradient is tested by itself.
    "mol": {"model.inference.tolerance": 1e-7, "model.objective.barrier_weight": 1e-12},
}


def test_the_gradient_of_an_update_is_that_of_finite_differences(system, tmp_path, batch):
    engine = tiny_direct.build_engine(tmp_path, tiny_direct.changed(system.config, EXACTLY.get(system.name, {})))
    engine.model.double().train()
    batch = {key: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
             for key, value in batch.items()}  # fmt: skip
    problem = problem_from_batch(batch)
    reference = reference_image(batch, problem)

    def loss():
        # Iteration 0 of DEEPEN is score matching; no gradient is to come through the chains of the later ones.
        generator = torch.Generator().manual_seed(3)
        return engine.objective.loss(
            Update(engine.model, engine.prior, engine.inference, reference, problem, 0, generator,
                   lambda *files: load_denoiser(*files).double())
        ).value  # fmt: skip

    loss().backward()
    generator = torch.Generator().manual_seed(1)
    parameters = [parameter for parameter in engine.model.parameters() if parameter.requires_grad]
    directions = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, directions, strict=True))
    values = []
    for step in (1e-6, -2e-6):
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.data.add_(step * direction)
        values.append(float(loss().detach()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3)


# ---- Prediction


def content(output, volume="a"):
    with h5py.File(output / f"{volume}.posterior.h5") as file, h5py.File(output / f"{volume}.h5") as of_direct:
        arrays = {name: dataset[()] for name, dataset in file.items()}
        return arrays, dict(file.attrs), of_direct["reconstruction"][()]


def test_prediction_is_the_inference_of_the_system_with_the_trained_prior(system, tmp_path, volumes):
    _, by_hand, tolerance = SYSTEMS[system.name]
    output = tiny_direct.direct_predict(tmp_path / "output", system.config, volumes, system.checkpoint)
    arrays, attributes, reconstruction = content(output)
    scales = ("row", "column", "quantile", "sample")
    assert all(len(array) == tiny_direct.SLICES for name, array in arrays.items() if name not in scales)
    name = "mean" if "num_samples" in attributes else "map" if "map" in arrays else "image"
    images = arrays[name]
    np.testing.assert_allclose(np.abs(images), reconstruction, rtol=1e-5)
    if name == "mean":
        assert attributes["num_samples"] == system.config["model"]["inference"]["num_samples"]
        assert arrays["quantiles"].shape == (tiny_direct.SLICES, 5, tiny_direct.SIZE, tiny_direct.SIZE)
        assert (np.diff(arrays["quantiles"], axis=1) >= 0).all()
        assert (arrays["std"] > 0).any()

    environment = tiny_direct.build_environment(tmp_path, system.config)
    engine = environment.engine
    engine.model.load_state_dict(tiny_direct.weights_of(system.run, LAST))
    # The masks of prediction are those of training here: both follow from the path.
    for number, sample in enumerate(tiny_direct.training_samples(environment, volumes)[: tiny_direct.SLICES]):
        problem = problem_from_batch(default_collate([sample]))
        A, b = problem.A, problem.masked_kspace
        with torch.no_grad():
            generator = image_generator(engine.seed, problem)
            expected = by_hand(A, b, engine.prior.eval(), sense(A, b, regularization=0.01), generator)
        found = torch.from_numpy(images[number] / arrays["scale"][number])
        assert float((found - expected[0]).norm() / expected.norm()) < tolerance


EVALUATIONS = {"deepen": 3 * (12 + 2), "deepen_of_any_noise": 4 * (12 + 2) + 2, "dps": 3 * 12, "alps": 3 * 3 * 2}
"""Of a posterior; a chain takes two at its start, one for its first step size, and an image two for its curvature."""


@pytest.mark.parametrize("name", EVALUATIONS)
def test_a_sampler_counts_the_evaluations_of_its_network(trained_system, batch, name):
    problem, inference, prior = one_problem(trained_system(name), batch)
    samples = inference.sample(problem, prior, torch.Generator().manual_seed(0))
    assert samples.gradient_evaluations == EVALUATIONS[name]


@cache
def _trained_engine(run, file):
    engine = tiny_direct.build_environment(run.parent / "engine", file).engine
    engine.model.load_state_dict(tiny_direct.weights_of(run, LAST))
    return engine


def one_problem(system, batch, **settings):
    """The first problem of a batch, the inference of a system with other settings, and its trained prior."""
    engine = _trained_engine(system.run, system.file)
    for key, value in settings.items():
        engine.configure(f"inference.{key}", value)
    return problem_from_batch(batch).select(torch.tensor([0])), engine.inference, engine.prior.eval()


@pytest.mark.parametrize("rule", ALPS_RULES)
def test_every_rule_of_alps_samples(trained_system, batch, rule):
    problem, inference, prior = one_problem(trained_system("alps"), batch, rule=rule)
    with torch.no_grad():
        images = inference.sample(problem, prior, torch.Generator().manual_seed(0)).images
    assert bool(torch.isfinite(images).all())
    # MAP is one image: no spread.
    assert len(images) == (1 if rule == "map" else 3)


# ---- Teacher and student


def test_the_teacher_is_the_average_of_the_diffusion(trained_system, draw):
    dps = trained_system("dps")
    denoiser = load_denoiser(dps.checkpoint, dps.file)
    weights = tiny_direct.weights_of(dps.run, LAST)
    for key, tensor in denoiser.state_dict().items():
        assert torch.equal(tensor, weights[f"averaged.average.{key}"])
    assert not denoiser.training
    assert denoiser(draw(1, 8, 8, dtype=torch.complex64), 0.3).shape == (1, 8, 8)


@pytest.mark.parametrize("key", ["teacher_configuration", "teacher_checkpoint"])
def test_a_student_without_a_teacher_ends_with_one_line(tmp_path, volumes, exit_with_one_line, trained_system, key):
    config = tiny_direct.changed(trained_system("alps").config, {f"model.objective.{key}": ""})
    with exit_with_one_line(f"model.objective.{key}", "allowed"):
        tiny_direct.direct_train(tmp_path, config, volumes)


def test_a_teacher_of_another_kind_is_refused(trained_system, one_line_error):
    muse = trained_system("muse")
    with one_line_error("model.model_name", "QuadraticEnergy", "deepen.priors.DiffusionDenoiser"):
        load_denoiser(muse.checkpoint, muse.file)
