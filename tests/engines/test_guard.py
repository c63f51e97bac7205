"""The guard: what it takes for trouble, where it goes back to, and how training goes on after it."""

import json
import math
from types import SimpleNamespace

import pytest
import recorded
import tiny_direct
import torch
from direct.data.lr_scheduler import WarmupMultiStepLR
from direct.utils.events import EventStorage
from torch import nn

from direct_deepen import objectives
from direct_deepen.data.batch import problem_from_batch, reference_image
from direct_deepen.engines.guard import Guard
from direct_deepen.engines.settings import system_of
from direct_deepen.engines.training import Training
from direct_deepen.errors import DivergenceError
from direct_deepen.objectives import Loss, Update
from direct_deepen.objectives.base import GuardSettings

NOT_A_NUMBER, INFINITY = float("nan"), float("inf")


@pytest.fixture
def model():
    return nn.Linear(3, 1)


@pytest.fixture
def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=0.1)


@pytest.fixture
def guard(model, optimizer):
    return Guard(GuardSettings(max_gap=20.0, max_curvature=4.0, interval=10), model, optimizer)


def take_a_step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


def state_of(model, optimizer):
    tensors = [*model.parameters(), *(t for entry in optimizer.state.values() for t in entry.values())]
    return [tensor.detach().clone() for tensor in tensors]


# ---- Trouble


def loss(value, gap=0.0, curvature=0.0):
    return Loss(torch.tensor(value), "loss", gap=gap, curvature=curvature)


def test_a_healthy_update_is_no_trouble(guard):
    assert guard.trouble(loss(-3.0, gap=19.9, curvature=3.9)) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (loss(NOT_A_NUMBER), ["loss is nan"]),
        (loss(-INFINITY), ["loss is inf"]),
        (loss(1.0, gap=20.1), ["|E+ - E-|/E0 is 20.1"]),
        (loss(1.0, curvature=4.1), ["curvature is 4.1"]),
        (loss(NOT_A_NUMBER, NOT_A_NUMBER, 5.0), ["loss", "E0 is nan", "curvature is 5"]),
    ],
)
def test_trouble_is_named_with_its_value(guard, found, words):
    message = guard.trouble(found)
    assert message is not None
    assert all(word in message for word in words)


def test_limits_that_are_infinite_leave_nan_and_infinity(model, optimizer):
    guard = Guard(GuardSettings(INFINITY, INFINITY), model, optimizer)
    assert guard.trouble(loss(1.0, 1e30, 1e30)) is None
    assert guard.trouble(loss(NOT_A_NUMBER)) is not None


# ---- States


def test_it_goes_back_to_the_older_of_two_states_and_again_to_the_same(guard, model, optimizer):
    states = {}
    for iteration in range(35):
        states[iteration] = state_of(model, optimizer)
        guard.remember(iteration)
        take_a_step(model, optimizer)
    # Remembered at 0, 10, 20 and 30; two are kept.
    for _ in range(2):
        assert guard.roll_back() == 20
        restored = state_of(model, optimizer)
        assert all(torch.equal(now, then) for now, then in zip(restored, states[20], strict=True))
        take_a_step(model, optimizer)
        assert not torch.equal(state_of(model, optimizer)[0], states[20][0])


def test_it_has_no_state_before_the_first_and_after_forgetting(guard):
    assert not guard.has_state
    guard.remember(5)
    assert guard.has_state
    guard.forget()
    assert not guard.has_state


def test_what_another_guard_remembered_is_gone_back_to(guard, model, optimizer):
    states = {}
    for iteration in range(25):
        states[iteration] = state_of(model, optimizer)
        guard.remember(iteration)
        take_a_step(model, optimizer)
    other = Guard(guard.settings, model, optimizer)
    other.load_state_dict(guard.state_dict())
    # Remembered at 0, 10 and 20; the next is due at 30.
    other.remember(29)
    assert other.roll_back() == 10
    assert all(torch.equal(now, then) for now, then in zip(state_of(model, optimizer), states[10], strict=True))


# ---- In training


def configuration(iterations):
    config = tiny_direct.persistent(tiny_direct.configuration(iterations=iterations, warm_start=6))
    return tiny_direct.changed(tiny_direct.recorded(config), {"model.objective.guard.interval": 1})


def logged(run):
    return {line["iteration"]: line for line in map(json.loads, (run / "metrics.json").read_text().splitlines())}


def test_training_goes_back_halves_the_rate_says_so_once_and_goes_on_also_if_it_is_interrupted(
    tmp_path, volumes, updates, caplog
):
    def diverge(update):
        if update.iteration == 9:
            raise DivergenceError("langevin: 1 of 2 chains diverged")

    with recorded.listening(recorded.BEFORE_UPDATE, diverge):
        run = tiny_direct.direct_train(tmp_path, configuration(11), volumes)
        # Four slices had chains before; iteration 10 began two anew.
        chains = torch.load(run / "training_state_10_0.pt", weights_only=True)["chains"]
        assert len(chains["names"]) == 2
        tiny_direct.direct_train(tmp_path, configuration(13), volumes, resume=True)
    (line,) = [record.getMessage() for record in caplog.records if "(rollback" in record.getMessage()]
    assert line.startswith("Iteration 9: langevin: 1 of 2 chains diverged. Back to the state of iteration 7")
    # The iteration itself took no step: the next one begins at the remembered weights.
    weights = {update.iteration: update.weights for update in updates}
    assert all(torch.equal(weights[10][name], weights[7][name]) for name in weights[7])
    assert any(not torch.equal(weights[11][name], weights[10][name]) for name in weights[10])
    lines = logged(run)
    assert [lines[i]["train/rollbacks"] for i in (8, 9, 10, 12)] == [0, 1, 1, 1]
    assert lines[10]["lr"] == lines[12]["lr"] == pytest.approx(lines[8]["lr"] / 2)
    assert all(math.isfinite(value) for line in lines.values() for value in line.values())


def test_a_rollback_leaves_adam_and_averaged_weights_exactly_as_they_were_remembered(tmp_path, batch):
    config = tiny_direct.configuration("phantom_dps")
    engine = tiny_direct.build_engine(tmp_path, tiny_direct.changed(config, {"model.objective.guard.interval": 1}))
    optimizer, model = engine._require_optimizer(), engine.model.train()
    engine._lr_scheduler = WarmupMultiStepLR(optimizer, [100], warmup_iterations=0)
    states = {}
    for iteration in range(7):
        with EventStorage(iteration):
            engine.before_update(iteration)
            states[iteration] = [*state_of(model, optimizer), *(tensor.clone() for tensor in model.buffers())]
            value = sum(parameter.square().sum() for parameter in model.parameters() if parameter.requires_grad)
            engine.update(iteration, Loss(value, "loss"), "trouble" if iteration == 5 else None)
        # What DIRECT's loop does after an iteration.
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        engine._lr_scheduler.step()
        optimizer.zero_grad()
    # Remembered at 3 and 4, gone back from in 5: 6 begins with the very weights, moments, counts and averages.
    assert all(torch.equal(now, then) for now, then in zip(states[6], states[3], strict=True))
    assert optimizer.param_groups[0]["lr"] == 0.5 * optimizer.param_groups[0]["initial_lr"]


def test_a_rollback_in_mixed_precision_takes_no_step_either(model, optimizer):
    scaler = torch.amp.GradScaler("cpu")
    take_a_step(model, optimizer)
    before = state_of(model, optimizer)
    engine = SimpleNamespace(_scaler=scaler, _require_optimizer=lambda: optimizer)
    Training.take_no_step(engine)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(now, then) for now, then in zip(state_of(model, optimizer), before, strict=True))


class NotANumberOnce(objectives.Denoising):
    """A loss that is no number in iteration 6."""

    def loss(self, update):
        found = super().loss(update)
        return Loss(found.value * NOT_A_NUMBER, found.name) if update.iteration == 6 else found


def test_a_loss_that_is_not_a_number_never_reaches_the_weights_of_any_objective(tmp_path, volumes, caplog):
    config = tiny_direct.changed(
        tiny_direct.configuration("phantom_pnp_ista"), {"model.objective.name": "test_guard:NotANumberOnce"}
    )
    run = tiny_direct.direct_train(tmp_path, config, volumes)
    assert any("(rollback 1)" in record.getMessage() for record in caplog.records)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tiny_direct.weights_of(run, 7).values())
    assert logged(run)[7]["train/rollbacks"] == 1


# ---- The spread of chains


class Quadratic:
    """E = (h/2)‖x‖²: the chains have variance ε²/(h(2 − τh)) in every direction that is not sampled."""

    def __init__(self, curvature):
        self.curvature = curvature

    def __call__(self, image):
        return 0.5 * self.curvature * image.abs().square().sum(dim=(1, 2))

    def value_and_grad(self, image):
        return self(image), self.curvature * image


@pytest.mark.parametrize(("curvature", "collapses"), [(0.01, False), (100.0, True)])
def test_the_spread_of_chains_is_measured_and_its_collapse_warned_of(batch, caplog, curvature, collapses):
    system = system_of({"objective": {"name": "contrastive", "warm_start_iterations": 0}})
    problem, prior = problem_from_batch(batch), Quadratic(curvature)
    reference, generator = reference_image(batch, problem), torch.Generator().manual_seed(0)
    update = Update(prior, prior, system.inference, reference, problem, 0, generator, None)
    spread = system.objective.loss(update).metrics["train/chain_spread"]
    assert collapses == any("collapses" in record.getMessage() for record in caplog.records)
    # h = 100, τ = 1.6/(1 + 200): √(1/(100·(2 − 0.8))) = 0.091; sampled directions differ by half a per cent.
    assert spread == pytest.approx(0.091, rel=0.05) if collapses else spread > 0.5
