"""Training through DIRECT's own loop: what runs when, what is learnt from, what is drawn, and how it ends."""

import json
import math
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from direct.utils.events import EventStorage

from direct_deepen.data.batch import problem_from_batch, reference_image
from direct_deepen.engines import engine as engine_module
from direct_deepen.errors import DivergenceError
from direct_deepen.objectives import denoising_score_matching_loss
from direct_deepen.objectives.training_samples import PersistentChains, draw_training_samples

CONTRASTIVE = {
    "contrastive_loss",
    "train/energy_true",
    "train/energy_sample",
    "train/energy_gap",
    "train/curvature",
    "train/step_size",
    "train/chain_spread",
}


def logged(run):
    """The lines of metrics.json by iteration."""
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    return {line["iteration"]: line for line in lines}


def state_of_adam(run, iteration):
    checkpoint = torch.load(run / f"model_{iteration}.pt", weights_only=True)
    return checkpoint["optimizer"]["state"]


# ---- A run


def test_the_warm_start_comes_first_and_the_contrastive_iterations_after_it(trained):
    lines = logged(trained)
    # DIRECT writes its first logs at iteration 5, the last of the warm start of this run.
    assert set(lines) == {0, 5, 6, 7, 8}
    assert "score_matching_loss" in lines[5]
    assert not CONTRASTIVE & set(lines[5])
    for iteration in (6, 7, 8):
        assert set(lines[iteration]) >= CONTRASTIVE


def test_all_that_is_logged_is_finite(trained):
    for line in logged(trained).values():
        assert all(math.isfinite(value) for value in line.values())


def test_the_logged_gap_is_true_minus_sample_energy_and_the_step_is_a_stable_one(trained):
    line = logged(trained)[6]
    gap = line["train/energy_true"] - line["train/energy_sample"]
    assert line["train/energy_gap"] == pytest.approx(gap, rel=1e-6)
    assert min(line["train/energy_true"], line["train/energy_sample"], line["train/curvature"]) > 0
    assert 0 < line["train/step_size"] <= 1


def test_a_run_leaves_a_checkpoint_of_finite_weights_that_differ_from_the_first(trained, environment):
    weights = tiny_direct.weights_of(trained, 8)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    # The same seed built this engine: these are the weights that the run began with.
    before = environment.engine.prior.state_dict()
    assert all(not torch.equal(weights[name], before[name]) for name in weights)


def test_validation_scores_the_map_image_with_the_metrics_of_the_configuration(trained):
    metrics = json.loads((trained / "metrics_val_validation_8.json").read_text())
    assert len(metrics) == 2
    for scores in metrics.values():
        assert set(scores) == {"fastmri_psnr_metric", "fastmri_ssim_metric", "fastmri_nmse_metric"}
        # Noise would have an error of the size of the image or more.
        assert scores["fastmri_nmse_metric"] < 0.2


# ---- Seeds


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(tmp_path, training_config, volumes, trained):
    first = tiny_direct.weights_of(trained, 8)
    second, third = (
        tiny_direct.weights_of(tiny_direct.direct_train(tmp_path / str(seed), training_config, volumes, seed=seed), 8)
        for seed in (1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(not torch.equal(first[name], third[name]) for name in first)


def test_the_draws_of_an_iteration_follow_from_seed_rank_and_iteration_alone(tmp_path, monkeypatch):
    def first_draw(engine, iteration):
        return torch.rand((), generator=engine._iteration_generator(iteration)).item()

    config = tiny_direct.configuration()
    engine = tiny_direct.build_engine(tmp_path, config, seed=3)
    reference = first_draw(engine, 5)
    torch.rand(10)
    assert first_draw(engine, 5) == reference
    assert first_draw(tiny_direct.build_engine(tmp_path, config, seed=3), 5) == reference
    others = [first_draw(engine, 6), first_draw(tiny_direct.build_engine(tmp_path, config, seed=4), 5)]
    monkeypatch.setattr(engine_module.communication, "get_rank", lambda: 1)
    others.append(first_draw(engine, 5))
    assert len({reference, *others}) == 4


# ---- What is learnt from


@pytest.fixture
def engine(tmp_path, map_config):
    return tiny_direct.build_engine(tmp_path, tiny_direct.recorded(map_config))


def generator_in(state):
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def one_step(engine, batch, iteration):
    """One iteration as DIRECT's loop calls it; the gradient of every weight."""
    engine.model.train()
    engine.model.zero_grad()
    with EventStorage(iteration):
        output = engine._do_iteration(batch)
    gradients = {name: parameter.grad.clone() for name, parameter in engine.model.named_parameters()}
    return SimpleNamespace(output=output, losses=output.data_dict, gradients=gradients)


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_the_gradient_is_the_difference_of_energy_gradients_and_none_comes_through_the_chain(
    engine, batch, updates, penalty
):
    engine.configure("objective.energy_penalty", penalty)
    evaluated = []
    engine.model.register_forward_pre_hook(lambda module, inputs: evaluated.append(inputs[0]))
    step = one_step(engine, batch, iteration=11)
    true_images, samples = evaluated[-1].chunk(2)
    assert not evaluated[-1].requires_grad
    (update,) = updates
    drawn = draw_training_samples(
        update.problem, engine.prior, shared=engine.settings, chains=engine.objective.chains,
        stored=PersistentChains(1), generator=generator_in(update.generator),
    )  # fmt: skip
    assert torch.equal(samples, drawn.images[0])

    def mean_energy_gradients(images, weights):
        """The gradient of the mean of w·E over images, image by image and by hand."""
        sums = {name: torch.zeros_like(parameter) for name, parameter in engine.model.named_parameters()}
        for image, weight in zip(images, weights, strict=True):
            energy = engine.prior(image[None]).sum()
            gradients = torch.autograd.grad(energy, list(engine.model.parameters()))
            for name, gradient in zip(sums, gradients, strict=True):
                sums[name] += weight * gradient / len(images)
        return sums

    # d/dθ of mean(E⁺) − mean(E⁻) + (α/E₀)·(mean(E⁺²) + mean(E⁻²)), with E₀ = Pε²/2.
    unit = 0.5 * 32 * 32 * 0.01**2
    with torch.no_grad():
        weights_true = 1 + 2 * penalty / unit * engine.prior(true_images)
        weights_sample = -1 + 2 * penalty / unit * engine.prior(samples)
    raised, lowered = mean_energy_gradients(true_images, weights_true), mean_energy_gradients(samples, weights_sample)
    for name, gradient in step.gradients.items():
        # Single precision, and differences of nearly equal sums.
        expected = raised[name] + lowered[name]
        scale = (raised[name].abs() + lowered[name].abs()).max()
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(scale))


def test_true_images_are_the_reference_with_data_noise(engine, batch):
    evaluated = []
    engine.model.register_forward_pre_hook(lambda module, inputs: evaluated.append(inputs[0]))
    one_step(engine, batch, iteration=11)
    true_images, _ = evaluated[-1].chunk(2)
    noise = torch.view_as_real(true_images - reference_image(batch, problem_from_batch(batch)))
    # 3·32·32·2 numbers: their standard deviation is within 3 % of its expectation with overwhelming probability.
    expected = engine.objective.data_noise_factor * engine.settings.noise_std
    assert float(noise.std()) == pytest.approx(expected, rel=0.03)
    assert abs(float(noise.mean())) < 0.1 * expected


def test_the_warm_start_matches_scores_at_the_temperature_of_the_configuration(engine, batch, updates):
    step = one_step(engine, batch, iteration=2)
    (update,) = updates
    torch.testing.assert_close(update.reference, reference_image(batch, problem_from_batch(batch)))
    objective = engine.objective
    expected = denoising_score_matching_loss(
        engine.prior,
        update.reference,
        max_noise_std=objective.warm_start_noise_std,
        energy_weight=objective.warm_start_energy_weight,
        scale=1 / (2 * objective.data_noise_factor**2),
        generator=generator_in(update.generator),
    )
    assert set(step.losses) == {"score_matching_loss"}
    torch.testing.assert_close(step.losses["score_matching_loss"], expected.detach())
    engine.model.zero_grad()
    expected.backward()
    for name, parameter in engine.model.named_parameters():
        torch.testing.assert_close(step.gradients[name], parameter.grad)
    assert any(float(gradient.abs().max()) > 0 for gradient in step.gradients.values())


def test_an_iteration_returns_detached_losses_and_the_reference_in_the_units_of_the_batch(engine, batch):
    for iteration in (2, 10):
        step = one_step(engine, batch, iteration)
        assert len(step.losses) == 1
        assert not any(loss.requires_grad for loss in step.losses.values())
        assert not step.output.output_image.requires_grad
        error = (step.output.output_image - batch["target"]).abs().max() / batch["target"].max()
        assert float(error) < 1e-5


# ---- The switch


@pytest.mark.parametrize(("warm_start", "steps"), [(0, 7), (4, 3), (6, 1), (100, 7)])
def test_adam_forgets_the_warm_start_at_the_switch_and_only_then(tmp_path, volumes, warm_start, steps):
    config = tiny_direct.configuration(iterations=7, warm_start=warm_start)
    run = tiny_direct.direct_train(tmp_path, config, volumes)
    assert {int(state["step"]) for state in state_of_adam(run, 6).values()} == {steps}
    assert ("contrastive_loss" in logged(run)[5]) == (warm_start <= 5)


def test_the_learning_rate_is_warmed_up_once_more_after_the_switch_and_is_direct_s_otherwise(
    tmp_path, volumes, monkeypatch
):
    rates = []
    step = torch.optim.Adam.step

    def recorded(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)

    def rates_of(warm_start):
        rates.clear()
        config = tiny_direct.configuration(iterations=9, warm_start=warm_start)
        config = tiny_direct.changed(config, {"training.lr_warmup_iter": 3, "training.lr_step_size": 7})
        tiny_direct.direct_train(tmp_path, config, volumes, name=f"warm_start_{warm_start}")
        return np.array(rates)

    of_direct = rates_of(100)
    eased = rates_of(4)
    np.testing.assert_allclose(eased[:4], of_direct[:4])
    np.testing.assert_allclose(eased[4:] / of_direct[4:], [1 / 3, 2 / 3, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(rates_of(0), of_direct)
    # The schedule of the test has a warm-up and a fall.
    assert of_direct[0] < of_direct[6] > of_direct[7]


# ---- How it ends


DIVERGING = {"model.objective.chains.step_size": 1e15}


def test_chains_that_diverge_whatever_the_rate_end_training_with_one_line_after_a_checkpoint(
    tmp_path, volumes, exit_with_one_line
):
    config = tiny_direct.changed(tiny_direct.configuration(iterations=20, warm_start=6), DIVERGING)
    with exit_with_one_line("langevin", "step_size", "10 times"):
        tiny_direct.direct_train(tmp_path, config, volumes)
    # Ten times back, from the first contrastive iteration on.
    assert (tmp_path / "run" / "last_model.txt").read_text() == "16"
    weights = tiny_direct.weights_of(tmp_path / "run", 16)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def test_a_loss_that_is_not_finite_never_reaches_the_weights(engine, batch):
    with torch.no_grad():
        next(engine.model.parameters()).fill_(float("nan"))
    for iteration, name in ((2, "loss is nan"), (10, "langevin")):
        engine.model.train()
        engine.model.zero_grad()
        with EventStorage(iteration), pytest.raises(RuntimeError, match=name) as caught:
            engine._do_iteration(batch)
        assert isinstance(caught.value.__cause__, DivergenceError)
        assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_a_flattened_head_of_another_image_size_ends_with_one_line(tmp_path, volumes, exit_with_one_line):
    model = {
        key: value for key, value in tiny_direct.configuration()["model"].items() if key not in ("activation", "weight")
    }
    model |= {"model_name": "deepen.priors.ConvEnergy", "head": "flattened", "image_size": [16, 16]}
    config = tiny_direct.changed(tiny_direct.configuration(), {"model": model})
    with exit_with_one_line("(32, 32)", "(16, 16)", "flattened"):
        tiny_direct.direct_train(tmp_path, config, volumes)


# DIRECT draws the target of the first batch for its logs.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_a_volume_with_a_bad_number_ends_training_by_its_name(tmp_path, exit_with_one_line):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken"])
    with h5py.File(data / "broken.h5", "r+") as file:
        file["kspace"][:, 0, 16, 16] = float("nan")
    with exit_with_one_line("broken.h5", "masked_kspace", "NaN"):
        tiny_direct.direct_train(tmp_path, tiny_direct.configuration(), data)


@pytest.mark.parametrize("energy", ["flattened", "pooled"])
def test_the_energies_of_the_paper_train_too(tmp_path, volumes, energy):
    model = {key: value for key, value in tiny_direct.configuration()["model"].items() if key != "weight"}
    size = [32, 32] if energy == "flattened" else None
    model |= {"model_name": "deepen.priors.ConvEnergy", "head": energy, "image_size": size, "activation": "relu"}
    config = tiny_direct.changed(tiny_direct.configuration(iterations=7), {"model": model})
    run = tiny_direct.direct_train(tmp_path, config, volumes)
    assert math.isfinite(logged(run)[6]["contrastive_loss"])


def test_the_random_phase_of_training_turns_images_and_maps_alike(engine, batch, updates):
    engine.configure("objective.random_phase", 1.0)
    step = one_step(engine, batch, iteration=2)
    (update,) = updates
    plain = problem_from_batch(batch)
    reference = reference_image(batch, plain)
    torch.testing.assert_close(update.reference.abs(), reference.abs(), rtol=1e-4, atol=1e-5)
    assert float((update.reference - reference).abs().max()) > 0.1
    torch.testing.assert_close(
        update.problem.A.forward(update.reference), plain.A.forward(reference), rtol=1e-3, atol=1e-4
    )
    assert math.isfinite(float(step.losses["score_matching_loss"]))


def test_what_an_objective_has_to_say_before_training_is_in_the_log(tmp_path, volumes, caplog):
    config = tiny_direct.persistent(tiny_direct.configuration(iterations=6, warm_start=5))
    tiny_direct.direct_train(tmp_path, config, volumes)
    (line,) = [record.getMessage() for record in caplog.records if "Persistent chains: 4 slices" in record.getMessage()]
    assert "model.objective.chains.max_stored" in line
