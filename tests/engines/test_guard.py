"""The guard: what it takes for trouble, where it goes back to, and how training goes on after it."""

import json
import math

import pytest
import tiny_direct
import torch
from torch import nn

from direct_deepen.engines import deepen_engine
from direct_deepen.engines.guard import Guard, Vitals
from direct_deepen.engines.settings import GuardSettings
from direct_deepen.errors import DivergenceError

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


def test_a_healthy_update_is_no_trouble(guard):
    assert guard.trouble(Vitals(-3.0, gap=19.9, curvature=3.9)) is None


@pytest.mark.parametrize(
    ("vitals", "words"),
    [
        (Vitals(NOT_A_NUMBER), ["loss is nan"]),
        (Vitals(-INFINITY), ["loss is inf"]),
        (Vitals(1.0, gap=20.1), ["|E+ - E-|/E0 is 20.1"]),
        (Vitals(1.0, curvature=4.1), ["curvature is 4.1"]),
        (Vitals(NOT_A_NUMBER, NOT_A_NUMBER, 5.0), ["loss", "E0 is nan", "curvature is 5"]),
    ],
)
def test_trouble_is_named_with_its_value(guard, vitals, words):
    message = guard.trouble(vitals)
    assert message is not None
    assert all(word in message for word in words)


def test_limits_that_are_infinite_leave_nan_and_infinity(model, optimizer):
    guard = Guard(GuardSettings(INFINITY, INFINITY), model, optimizer)
    assert guard.trouble(Vitals(1.0, 1e30, 1e30)) is None
    assert guard.trouble(Vitals(NOT_A_NUMBER)) is not None


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


TROUBLE_AT = 9


@pytest.fixture
def troubled(monkeypatch):
    """Chains that diverge once, in iteration :data:`TROUBLE_AT`; the weights and chains before every other draw."""
    weights = {}
    draw = deepen_engine.draw_training_samples
    waiting = [TROUBLE_AT]

    def disturbed(problem, energy, **kwargs):
        iteration = deepen_engine.get_event_storage().iter
        if iteration in waiting:
            waiting.remove(iteration)
            raise DivergenceError("langevin: 1 of 2 chains diverged")
        weights[iteration] = {name: tensor.clone() for name, tensor in energy.state_dict().items()}
        return draw(problem, energy, **kwargs)

    monkeypatch.setattr(deepen_engine, "draw_training_samples", disturbed)
    return weights


def configuration(iterations):
    config = tiny_direct.configuration(iterations=iterations, warm_start=6)
    return tiny_direct.changed(config, {"model.objective.guard.interval": 1})


def test_training_goes_back_halves_the_rate_says_so_once_and_goes_on(tmp_path, volumes, troubled, caplog):
    run = tiny_direct.direct_train(tmp_path, configuration(12), volumes)
    (line,) = [record.getMessage() for record in caplog.records if "(rollback" in record.getMessage()]
    assert line == (
        "Iteration 9: langevin: 1 of 2 chains diverged. "
        "Back to the state of iteration 7 with half the learning rate (rollback 1)."
    )
    # The iteration itself took no step: the next one begins at the remembered weights.
    assert all(torch.equal(troubled[10][name], troubled[7][name]) for name in troubled[7])
    assert any(not torch.equal(troubled[11][name], troubled[10][name]) for name in troubled[10])
    lines = {line["iteration"]: line for line in map(json.loads, (run / "metrics.json").read_text().splitlines())}
    assert [lines[i]["train/rollbacks"] for i in (8, 9, 11)] == [0, 1, 1]
    assert lines[10]["lr"] == pytest.approx(lines[8]["lr"] / 2)
    assert all(math.isfinite(value) for line in lines.values() for value in line.values())


def test_a_resumed_run_keeps_the_halved_rate_and_the_count(tmp_path, volumes, troubled):
    tiny_direct.direct_train(tmp_path, configuration(11), volumes)
    run = tiny_direct.direct_train(tmp_path, configuration(13), volumes, resume=True)
    lines = {line["iteration"]: line for line in map(json.loads, (run / "metrics.json").read_text().splitlines())}
    assert lines[12]["train/rollbacks"] == 1
    assert lines[12]["lr"] == pytest.approx(lines[8]["lr"] / 2)


def test_going_back_empties_the_memory_of_persistent_chains(tmp_path, volumes, troubled):
    persistent = {"noise": 0.0, "sense": 0.0, "persistent": 1.0}
    changes = {f"model.objective.chains.{kind}.fraction": fraction for kind, fraction in persistent.items()}
    run = tiny_direct.direct_train(tmp_path, tiny_direct.changed(configuration(11), changes), volumes)
    chains = torch.load(run / "training_state_10_0.pt", weights_only=True)["chains"]
    # Four slices were in it before; iteration 10 put two back.
    assert len(chains["names"]) == 2


# ---- The spread of chains


@pytest.mark.parametrize(("precision", "warned"), [(0.0, False), (100.0, True)])
def test_the_spread_of_chains_is_logged_and_its_collapse_warned_of(
    tmp_path, volumes, monkeypatch, caplog, precision, warned
):
    spreads = []
    measure = deepen_engine.chain_spread

    class Stiff:
        """E = (h/2)‖x‖²: the chains have variance ε²/(h(2 − τh)) in every direction that is not sampled."""

        def value_and_grad(self, image):
            return 0.5 * precision * image.abs().square().sum(dim=(1, 2)), precision * image

    def measured(problem, energy, **kwargs):
        spreads.append(measure(problem, Stiff() if precision else energy, **kwargs))
        return spreads[-1]

    monkeypatch.setattr(deepen_engine, "chain_spread", measured)
    run = tiny_direct.direct_train(tmp_path, tiny_direct.configuration(iterations=8, warm_start=6), volumes)
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert [line["train/chain_spread"] for line in lines if line["iteration"] == 6] == pytest.approx(spreads)
    assert warned == any("collapses" in record.getMessage() for record in caplog.records)
    if warned:
        # h = 100, τ = 1.6/(1 + 200): √(1/(100·(2 − 0.8))) = 0.091; sampled directions differ by half a per cent.
        assert spreads[0] == pytest.approx(0.091, rel=0.05)
    else:
        assert spreads[0] > 0.5
