"""Training that is killed, wherever it is, and resumed becomes what it would have become: bit for bit."""

import json
import re
import signal
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_direct
import torch
from killed_process import CALL, Kill, train

CHECKPOINTS = (6, 8, 10, 11)


@pytest.fixture(scope="module")
def config():
    """Twelve iterations with persistent chains, a checkpoint every two, and states for the guard every three."""
    changes = {"training.checkpointer.checkpoint_steps": 2, "model.objective.guard.interval": 3}
    return tiny_direct.changed(tiny_direct.persistent(tiny_direct.configuration(iterations=12, warm_start=3)), changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config, volumes):
    """The uninterrupted run, and what it did."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return SimpleNamespace(run=run, record=train(run, config, volumes, count_calls=True))


def drawn_kills(record, count):
    """Kills at random moments, then in writing every kind of file, and so on, at random places of a whole run.

    The first of every kind is in the middle of the run, and of what is written.
    """
    generator = np.random.default_rng(count)
    sizes = {}
    for kind, size in record.operations:
        sizes.setdefault(kind, []).append(size)
    first = [CALL, "write model_<n>.pt", "write last_model.txt"]
    kinds = first + [kind for kind in sizes if kind not in first]
    for index in range(count):
        kind = kinds[index % len(kinds)]
        if kind == CALL:
            yield Kill(CALL, int(generator.integers(record.calls)))
        else:
            number = int(generator.integers(len(sizes[kind])))
            size = int(generator.integers(sizes[kind][number] + 1))
            if index < len(kinds):
                number = len(sizes[kind]) // 2
                size = sizes[kind][number] // 2
            yield Kill(kind, number, size)


def content_of(path):
    content = torch.load(path, weights_only=True)
    content.pop("__datetime__", None)
    return content


def assert_equal(found, expected):
    """Numbers, texts and tensors in dictionaries and lists are the same to the last bit."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_equal(list(found.values()), list(expected.values()))
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def samples_of(run):
    """Every iteration with the samples it took; those that were done twice, twice."""
    lines = run.with_suffix(".samples").read_text().splitlines()
    return [(iteration, tuple(map(tuple, names))) for iteration, names in map(json.loads, lines)]


def names_in(run):
    """What lies in the folder of a run and in those below; DIRECT's logs, one or more for every process, as one."""
    paths = [path.relative_to(run).as_posix() for path in run.rglob("*")]
    return {re.sub("[0-9]+", "<n>", path) if "log_" in path or "tfevents" in path else path for path in paths}


def assert_became(run, whole):
    expected_samples = dict(samples_of(whole.run))
    assert sorted(expected_samples) == list(range(12))
    assert set(samples_of(run)) == set(expected_samples.items())
    names = {f"model_{iteration}.pt" for iteration in CHECKPOINTS}
    assert {path.name for path in run.glob("model_*")} == names
    for name in (*names, "training_state_11_0.pt"):
        assert_equal(content_of(run / name), content_of(whole.run / name))
    # The states of earlier checkpoints go with the next one: after a kill in the last there may be one more.
    states = {f"training_state_{iteration}_0.pt" for iteration in CHECKPOINTS}
    assert names_in(run) - states == names_in(whole.run) - states
    assert (run / "last_model.txt").read_text() == "11"
    found, expected = rates_of(run).items(), rates_of(whole.run).items()
    assert found <= expected
    # DIRECT writes the line after the checkpoint.
    assert {iteration for iteration, _ in expected - found} <= set(CHECKPOINTS)


def rates_of(run):
    """The learning rate of every iteration in DIRECT's log, every line of which is whole; iteration 0 has none."""
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    return {line["iteration"]: line.get("lr") for line in lines}


@pytest.mark.parametrize("count", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_training_becomes_the_uninterrupted_one(tmp_path, whole, config, volumes, count):
    killed, runs, first_iterations = [], [tmp_path / "run_0"], []

    def trained(kill=None):
        """Whether training in the newest folder came to its end."""
        run = runs[-1]
        before = len(samples_of(run)) if run.with_suffix(".samples").exists() else 0
        record = train(run, config, volumes, kill=kill)
        first_iterations.extend(iteration for iteration, _ in samples_of(run)[before : before + 1])
        return record is not None

    for kill in drawn_kills(whole.record, count):
        # A resumed run may end before it comes to that place: then it is that of a new one.
        if trained(kill):
            runs.append(tmp_path / f"run_{len(runs)}")
            assert not trained(kill)
        killed.append(kill.kind)
    assert trained()
    assert len(killed) == count
    # From the beginning, and from a checkpoint: after iteration 6 and later.
    assert {0} < set(first_iterations) <= {0, *(iteration + 1 for iteration in CHECKPOINTS)}
    if count == 30:
        assert set(killed) == {CALL, *(kind for kind, _ in whole.record.operations)}
        assert {"write model_<n>.pt", "write last_model.txt", "write metrics.json"} <= set(killed)
        assert any(kind.startswith("write training_state_") for kind in killed)
    for run in runs:
        assert_became(run, whole)


@pytest.mark.parametrize("kind", ["write last_model.txt", "rename model_<n>.pt", "rename last_model.txt"])
def test_a_kill_in_the_last_checkpoint_leaves_nothing_behind(tmp_path, whole, config, volumes, kind):
    run = tmp_path / "run"
    number = sum(found == kind for found, _ in whole.record.operations) - 1
    assert number == len(CHECKPOINTS) - 1
    assert train(run, config, volumes, kill=Kill(kind, number)) is None
    assert train(run, config, volumes) is not None
    assert_became(run, whole)


# ---- Ctrl-C


def interruptions(record, kinds, shares):
    """Ctrl-C in the middle of writing every kind of file, and at moments of the last tenth, when updates are done."""
    for kind in kinds:
        sizes = [size for found, size in record.operations if found == kind]
        yield Kill(kind, len(sizes) // 2, sizes[len(sizes) // 2] // 2, signal.SIGINT)
    for share in shares:
        yield Kill(CALL, int(share * record.calls), signal=signal.SIGINT)


@pytest.mark.parametrize(
    ("kinds", "shares"),
    [
        (["write model_<n>.pt", "write metrics.json"], [0.95]),
        pytest.param(["rename model_<n>.pt", "write last_model.txt"], [0.9, 0.99], marks=pytest.mark.slow),
    ],
    ids=["files and a call", "others"],
)
def test_an_interrupted_training_ends_with_130_and_goes_on_as_if_nothing_had_been(
    tmp_path, whole, config, volumes, kinds, shares
):
    for number, kill in enumerate(interruptions(whole.record, kinds, shares)):
        run = tmp_path / f"run_{number}"
        assert train(run, config, volumes, kill=kill) is None
        log = run.with_suffix(".log").read_text()
        assert "interrupted; what was finished is on disk" in log
        assert "Traceback" not in log
        assert all(zipfile.is_zipfile(path) for path in run.glob("*.pt"))
        assert not list(run.glob(".checkpoint-*"))
        assert train(run, config, volumes) is not None
        assert_became(run, whole)
