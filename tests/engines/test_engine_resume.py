"""A run that was interrupted goes on as it would have gone on: iterations, draws, chains, the guard, the samples.

That it goes on so wherever it was killed is shown in ``test_killed_training.py``, and for every system in
``test_systems.py``.
"""

import json
import shutil

import h5py
import numpy as np
import pytest
import recorded
import tiny_direct
import torch

from direct_deepen.errors import DivergenceError


def persistent(iterations, *, warm_start=0):
    """A configuration all of whose chains are persistent."""
    config = tiny_direct.configuration(iterations=iterations, warm_start=warm_start)
    return tiny_direct.recorded(tiny_direct.persistent(config))


@pytest.fixture(scope="module")
def six(tmp_path_factory, volumes):
    """A run of six iterations."""
    return tiny_direct.direct_train(tmp_path_factory.mktemp("six"), persistent(6), volumes)


def trouble_in(iteration):
    """Chains diverge in this iteration."""

    def diverge(update):
        if update.iteration == iteration:
            raise DivergenceError("langevin: 1 of 2 chains diverged")

    return recorded.listening(recorded.BEFORE_UPDATE, diverge)


def assert_equal_weights(run, other, iteration):
    weights, expected = (tiny_direct.weights_of(folder, iteration) for folder in (run, other))
    assert [name for name, tensor in weights.items() if not torch.equal(tensor, expected[name])] == []


# ---- Iterations and draws


def test_a_resumed_run_counts_on_draws_anew_in_every_iteration_and_keeps_the_moments_of_adam(
    tmp_path, volumes, updates
):
    tiny_direct.direct_train(tmp_path, persistent(7, warm_start=3), volumes)
    run = tiny_direct.direct_train(tmp_path, persistent(9, warm_start=3), volumes, resume=True)
    assert [update.iteration for update in updates] == list(range(9))
    assert len({tuple(update.generator.tolist()) for update in updates}) == 9
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 5, 6, 7, 8]
    assert (run / "last_model.txt").read_text() == "8"
    state = torch.load(run / "model_8.pt", weights_only=True)["optimizer"]["state"]
    # Cleared at iteration 3, the switch, and not when the run went on at iteration 7.
    assert {int(entry["step"]) for entry in state.values()} == {6}


def test_a_run_resumed_at_the_switch_still_forgets_the_warm_start(tmp_path, volumes):
    tiny_direct.direct_train(tmp_path, persistent(6, warm_start=6), volumes)
    run = tiny_direct.direct_train(tmp_path, persistent(8, warm_start=6), volumes, resume=True)
    state = torch.load(run / "model_7.pt", weights_only=True)["optimizer"]["state"]
    assert {int(entry["step"]) for entry in state.values()} == {2}


def test_a_run_keeps_the_seeds_it_began_with_and_its_chains(tmp_path, volumes, six):
    whole = tiny_direct.direct_train(tmp_path, persistent(9), volumes)
    shutil.copytree(six, tmp_path / "parts" / "run")
    parts = tiny_direct.direct_train(tmp_path / "parts", persistent(9), volumes, resume=True, seed=2)
    assert_equal_weights(parts, whole, 8)


# ---- Persistent chains and the state beside a checkpoint


def number_of_chains(path):
    return len(torch.load(path, weights_only=True)["chains"]["images"])


def test_a_new_run_reads_no_chains_that_an_older_one_left_in_its_folder(tmp_path, volumes, six):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(six / "training_state_5_0.pt", run)
    assert number_of_chains(run / "training_state_5_0.pt") == 4
    tiny_direct.direct_train(tmp_path, persistent(6), volumes)
    assert_equal_weights(run, six, 5)


def test_chains_are_kept_if_training_ends_with_an_error_between_two_checkpoints(tmp_path, volumes):
    config = tiny_direct.changed(persistent(12), {"model.objective.guard.max_rollbacks": 0})
    with trouble_in(6), pytest.raises(SystemExit):
        tiny_direct.direct_train(tmp_path, config, volumes)
    assert (tmp_path / "run" / "last_model.txt").read_text() == "6"
    assert number_of_chains(tmp_path / "run" / "training_state_6_0.pt") == 4


def test_the_guard_goes_back_to_where_the_whole_run_goes_back(tmp_path, volumes, caplog):
    interval = {"model.objective.guard.interval": 2}
    short, long = (tiny_direct.changed(persistent(number), interval) for number in (6, 9))
    with trouble_in(7):
        whole = tiny_direct.direct_train(tmp_path, long, volumes)
        tiny_direct.direct_train(tmp_path / "parts", short, volumes)
        parts = tiny_direct.direct_train(tmp_path / "parts", long, volumes, resume=True)
    # States of the iterations 4 and 6: only the interrupted run knew the older one.
    lines = [message for message in caplog.messages if "Back to the state" in message]
    assert len(lines) == 2
    assert all("iteration 4 with half" in line for line in lines)
    assert_equal_weights(parts, whole, 8)


def rollbacks(run):
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    return {line["iteration"]: line["train/rollbacks"] for line in lines if "train/rollbacks" in line}


@pytest.mark.parametrize("counted", [True, False], ids=["state", "state of an earlier version"])
def test_rollbacks_are_counted_and_not_read_off_a_learning_rate_that_was_changed_by_hand(
    tmp_path, volumes, counted, caplog
):
    with trouble_in(4):
        run = tiny_direct.direct_train(tmp_path, persistent(6), volumes)
    state = torch.load(run / "training_state_5_0.pt", weights_only=True)
    assert state["rollbacks"] == 1
    if not counted:
        del state["rollbacks"], state["without_step"]
        torch.save(state, run / "training_state_5_0.pt")
    config = persistent(8)
    rate = config["training"]["lr"]
    config["training"]["lr"] = rate / 2
    with trouble_in(7):
        tiny_direct.direct_train(tmp_path, config, volumes, resume=True)
    assert rollbacks(run) == {5: 1, 6: 1, 7: 2}
    (line,) = [message for message in caplog.messages if "training.lr is" in message]
    assert f"training began with {rate:g}" in line


# ---- Another number of processes, another device


@pytest.mark.parametrize(("written", "processes"), [(2, 1), (1, 2)])
def test_a_run_of_another_number_of_processes_goes_on_with_one_line(
    tmp_path, volumes, six, monkeypatch, caplog, written, processes
):
    run = shutil.copytree(six, tmp_path / "run")
    first = torch.load(run / "training_state_5_0.pt", weights_only=True)
    if written == 2:
        # Chains and guard of the second process, and its older state.
        for iteration in (4, 5):
            torch.save(first | {"guard": {"states": []}}, run / f"training_state_{iteration}_1.pt")
        tiny_direct.direct_train(tmp_path, persistent(8), volumes, resume=True)
        assert sorted(path.name for path in run.glob("training_state_*")) == [
            "training_state_5_0.pt", "training_state_5_1.pt", "training_state_7_0.pt",
        ]  # fmt: skip
        whole = tiny_direct.direct_train(tmp_path / "whole", persistent(8), volumes)
        assert_equal_weights(run, whole, 7)
    else:
        # The second of two processes: the guard goes back where the first one's does.
        engine = tiny_direct.build_engine(tmp_path / "second", persistent(8))
        engine._lr_scheduler = torch.optim.lr_scheduler.ConstantLR(engine._require_optimizer(), 1.0)
        monkeypatch.setattr("direct.utils.communication.get_rank", lambda: 1)
        monkeypatch.setattr("direct.utils.communication.get_world_size", lambda: processes)
        engine._restore(run, 5)
        assert [state[0] for state in engine.guard.state_dict()["states"]] == [s[0] for s in first["guard"]["states"]]
        assert engine.seed == first["seed"]
        assert len(engine.objective.stored_chains) == 4
    (line,) = [message for message in caplog.messages if "resumed by" in message]
    assert f"states of {written} processes, resumed by {processes}" in line


def test_four_processes_that_load_data_change_no_bit_of_a_training_or_a_prediction(tmp_path, volumes, mean_config):
    runs = [tiny_direct.direct_train(tmp_path / str(n), persistent(8), volumes, num_workers=n) for n in (0, 4)]
    assert_equal_weights(*runs, 7)
    outputs = [
        tiny_direct.direct_predict(run / "out", mean_config, volumes, run / "model_7.pt", num_workers=number)
        for run, number in zip(runs, (0, 4), strict=True)
    ]
    for name in ("a.h5", "b.h5", "a.posterior.h5", "b.posterior.h5"):
        with h5py.File(outputs[0] / name) as one, h5py.File(outputs[1] / name) as other:
            for array in (name for name in one if not name.endswith("seconds")):
                np.testing.assert_array_equal(other[array][()], one[array][()], err_msg=f"{name} {array}")


def test_a_run_that_was_written_on_a_gpu_goes_on_without_one(tmp_path, volumes, six, monkeypatch):
    run = shutil.copytree(six, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        for path in (run / "model_5.pt", run / "training_state_5_0.pt"):
            torch.save(torch.load(path, weights_only=True), path)
    with pytest.raises(RuntimeError, match="on a CUDA device"):
        torch.load(run / "training_state_5_0.pt", weights_only=True)
    tiny_direct.direct_train(tmp_path, persistent(8), volumes, resume=True)
    whole = tiny_direct.direct_train(tmp_path / "whole", persistent(8), volumes)
    assert_equal_weights(run, whole, 7)


def test_without_its_state_a_run_goes_on_with_new_chains_and_says_so(tmp_path, volumes, six, caplog):
    run = shutil.copytree(six, tmp_path / "run")
    (run / "training_state_5_0.pt").unlink()
    tiny_direct.direct_train(tmp_path, persistent(7), volumes, resume=True)
    (line,) = (message for message in caplog.messages if "is missing" in message)
    assert "training_state_5_0.pt" in line
    assert (run / "last_model.txt").read_text() == "6"


# ---- What is damaged


def test_torn_files_of_direct_cost_a_warning_and_no_more_than_they_held(tmp_path, volumes, caplog):
    config = tiny_direct.changed(persistent(9), {"training.checkpointer.checkpoint_steps": 2})
    run = tiny_direct.direct_train(tmp_path, config, volumes)
    whole = tiny_direct.weights_of(run, 8)
    (run / "model_8.pt").write_bytes((run / "model_8.pt").read_bytes()[:-100])
    (run / "last_model.txt").write_text("")
    # The state of iteration 6 is there still: that of the checkpoint before.
    tiny_direct.direct_train(tmp_path, config, volumes, resume=True)
    assert sum("goes on from model_6.pt" in message for message in caplog.messages) == 1
    for name, tensor in tiny_direct.weights_of(run, 8).items():
        assert torch.equal(tensor, whole[name])


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "another content"])
def test_a_damaged_state_ends_the_command_with_one_line(tmp_path, six, volumes, exit_with_one_line, kind):
    path = shutil.copytree(six, tmp_path / "run") / "training_state_5_0.pt"
    if kind == "another content":
        torch.save({"chains": [1, 2]}, path)
    else:
        path.write_bytes({"text": b"damaged", "empty": b"", "truncated": path.read_bytes()[:-200]}[kind])
    with exit_with_one_line(str(path), "delete it"):
        tiny_direct.direct_train(tmp_path, persistent(8), volumes, resume=True)
