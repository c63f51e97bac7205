"""A run that was interrupted goes on as it would have gone on: iterations, draws, chains, the guard, the samples.

That it goes on so wherever it was killed is shown in ``test_killed_training.py``.
"""

import json
import shutil

import pytest
import tiny_direct
import torch
from direct_deepen.engines.persistent_chains import PersistentChains

from direct_deepen.engines import training_samples
from direct_deepen.engines.guard import Guard
from direct_deepen.physics.sense import sense


def persistent(iterations, *, warm_start=0):
    """A configuration all of whose chains are persistent."""
    fractions = {"noise": 0.0, "sense": 0.0, "persistent": 1.0}
    return tiny_direct.changed(
        tiny_direct.configuration(iterations=iterations, warm_start=warm_start),
        {f"model.objective.chains.{kind}.fraction": fraction for kind, fraction in fractions.items()},
    )


@pytest.fixture
def started(monkeypatch):
    """The problem and the starting images of every chain that is trained on."""
    record = []
    original = training_samples.langevin

    def recorded(A, masked_kspace, energy, *, init="noise", **kwargs):
        samples = original(A, masked_kspace, energy, init=init, **kwargs)
        # Chains from noise only measure the spread.
        if not isinstance(init, str):
            record.append((A, masked_kspace, init, samples.images[0]))
        return samples

    monkeypatch.setattr(training_samples, "langevin", recorded)
    return record


def stored_images(path):
    content = torch.load(path, weights_only=True)["chains"]
    return {(name, number): image for (name, number), image in zip(content["names"], content["images"], strict=True)}


# ---- Iterations and draws


def test_a_resumed_run_counts_on_and_draws_what_the_whole_run_draws(tmp_path, volumes, drawn, caplog):
    whole = tiny_direct.direct_train(tmp_path, tiny_direct.configuration(iterations=9, warm_start=3), volumes)
    expected = {draw.iteration: draw.generator for draw in drawn}
    assert sorted(expected) == list(range(3, 9))
    assert len({tuple(state.tolist()) for state in expected.values()}) == 6

    drawn.clear()
    first = tiny_direct.configuration(iterations=7, warm_start=3)
    tiny_direct.direct_train(tmp_path / "parts", first, volumes)
    parts = tiny_direct.direct_train(
        tmp_path / "parts", tiny_direct.configuration(iterations=9, warm_start=3), volumes, resume=True
    )
    assert [draw.iteration for draw in drawn] == list(range(3, 9))
    for draw in drawn:
        assert torch.equal(draw.generator, expected[draw.iteration])
    for run in (whole, parts):
        lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
        assert [line["iteration"] for line in lines] == [0, 5, 6, 7, 8]
        assert (run / "last_model.txt").read_text() == "8"


def test_a_resumed_run_goes_on_with_the_moments_of_adam(tmp_path, volumes):
    tiny_direct.direct_train(tmp_path, tiny_direct.configuration(iterations=6, warm_start=3), volumes)
    run = tiny_direct.direct_train(
        tmp_path, tiny_direct.configuration(iterations=9, warm_start=3), volumes, resume=True
    )
    state = torch.load(run / "model_8.pt", weights_only=True)["optimizer"]["state"]
    # Cleared at iteration 3, the switch, and not when the run went on at iteration 6.
    assert {int(entry["step"]) for entry in state.values()} == {6}


def test_a_run_resumed_at_the_switch_still_forgets_the_warm_start(tmp_path, volumes):
    tiny_direct.direct_train(tmp_path, tiny_direct.configuration(iterations=6, warm_start=6), volumes)
    run = tiny_direct.direct_train(
        tmp_path, tiny_direct.configuration(iterations=8, warm_start=6), volumes, resume=True
    )
    state = torch.load(run / "model_7.pt", weights_only=True)["optimizer"]["state"]
    assert {int(entry["step"]) for entry in state.values()} == {2}


# ---- Persistent chains


def test_a_chain_goes_on_where_the_same_slice_was_left_and_over_an_interruption(tmp_path, volumes, started):
    run = tiny_direct.direct_train(tmp_path, persistent(6), volumes)
    states = stored_images(run / "training_state_5_0.pt")
    assert len(states) == 4
    ends = [image for _, _, _, images in started for image in images]
    assert all(any(torch.equal(state, end) for end in ends) for state in states.values())

    started.clear()
    tiny_direct.direct_train(tmp_path, persistent(8), volumes, resume=True)
    # Two iterations of two images: every one begins at a state that was stored, or at one drawn since.
    for call, (_, _, init, _) in enumerate(started):
        known = [*states.values(), *(image for _, _, _, images in started[:call] for image in images)]
        assert all(any(torch.equal(image, state) for state in known) for image in init)
    assert len(started) == 2


def test_a_chain_begins_anew_from_sense_where_the_mask_is_another(tmp_path, volumes, started):
    tiny_direct.direct_train(tmp_path, persistent(6), volumes)
    started.clear()
    other = tiny_direct.with_transforms(persistent(7), {"masking.accelerations": [3.0]})
    tiny_direct.direct_train(tmp_path, other, volumes, resume=True)
    ((A, masked_kspace, init, _),) = started
    distance = torch.view_as_real(init - sense(A, masked_kspace, regularization=0.01, tolerance=1e-3))
    # 2·32·32·2 numbers of noise of standard deviation ε = 0.01 around SENSE.
    assert float(distance.std()) == pytest.approx(0.01, rel=0.05)


def test_a_new_run_reads_no_chains_that_an_older_one_left_in_its_folder(tmp_path, volumes, monkeypatch):
    run = tiny_direct.direct_train(tmp_path, persistent(6), volumes)
    assert (run / "training_state_5_0.pt").is_file()
    monkeypatch.setattr(PersistentChains, "load_state_dict", lambda *_: pytest.fail("chains were read"))
    tiny_direct.direct_train(tmp_path, persistent(6), volumes)


def test_chains_go_on_if_training_ends_with_an_error_between_two_checkpoints(tmp_path, volumes, started, monkeypatch):
    monkeypatch.setattr(Guard, "trouble", lambda *_: "trouble" if len(started) > 6 else None)
    broken = tiny_direct.changed(persistent(12), {"model.objective.guard.max_rollbacks": 0})
    with pytest.raises(SystemExit):
        tiny_direct.direct_train(tmp_path, broken, volumes)
    (run,) = tmp_path.glob("run")
    assert (run / "last_model.txt").read_text() == "6"
    assert len(stored_images(run / "training_state_6_0.pt")) == 4


# ---- The state beside a checkpoint


def test_the_state_is_written_with_every_checkpoint_and_kept_for_the_last_two(tmp_path, volumes):
    steps = {"training.checkpointer.checkpoint_steps": 2}
    run = tiny_direct.direct_train(tmp_path, tiny_direct.changed(persistent(10), steps), volumes)
    assert {path.name for path in run.glob("model_*.pt")} == {f"model_{number}.pt" for number in (6, 8, 9)}
    assert {path.name for path in run.glob("training_state_*")} == {"training_state_8_0.pt", "training_state_9_0.pt"}


def test_a_run_keeps_the_seeds_it_began_with(tmp_path, volumes):
    whole = tiny_direct.direct_train(tmp_path, persistent(9), volumes)
    tiny_direct.direct_train(tmp_path / "parts", persistent(6), volumes)
    parts = tiny_direct.direct_train(tmp_path / "parts", persistent(9), volumes, resume=True, seed=2)
    other = tiny_direct.direct_train(tmp_path / "other", persistent(9), volumes, seed=2)
    assert equal_weights(parts, whole, 8)
    assert not equal_weights(other, whole, 8)


def test_the_guard_goes_back_to_where_the_whole_run_goes_back(tmp_path, volumes, monkeypatch, caplog):
    iterations = iter(())
    monkeypatch.setattr(Guard, "trouble", lambda *_: "trouble" if next(iterations) == 7 else None)
    interval = {"model.objective.guard.interval": 2}
    short, long = (tiny_direct.changed(persistent(number), interval) for number in (6, 9))
    iterations = iter(range(9))
    whole = tiny_direct.direct_train(tmp_path, long, volumes)
    iterations = iter(range(9))
    tiny_direct.direct_train(tmp_path / "parts", short, volumes)
    parts = tiny_direct.direct_train(tmp_path / "parts", long, volumes, resume=True)
    # States of the iterations 4 and 6: only the interrupted run knew the older one.
    lines = [message for message in caplog.messages if "Back to the state" in message]
    assert len(lines) == 2
    assert all("iteration 4 with half" in line for line in lines)
    assert equal_weights(parts, whole, 8)


def test_without_its_state_a_run_goes_on_with_new_chains_and_says_so(tmp_path, volumes, started, caplog):
    run = tiny_direct.direct_train(tmp_path, persistent(6), volumes)
    (run / "training_state_5_0.pt").unlink()
    tiny_direct.direct_train(tmp_path, persistent(7), volumes, resume=True)
    (line,) = (message for message in caplog.messages if "is missing" in message)
    assert "training_state_5_0.pt" in line
    assert "chains" in line
    assert (run / "last_model.txt").read_text() == "6"


def equal_weights(run, other, iteration):
    weights = [tiny_direct.weights_of(folder, iteration) for folder in (run, other)]
    return all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


# ---- What is damaged


def test_torn_files_of_direct_cost_a_warning_and_no_more_than_they_held(tmp_path, volumes, caplog):
    steps = {"training.checkpointer.checkpoint_steps": 2}
    run = tiny_direct.direct_train(tmp_path, tiny_direct.changed(persistent(9), steps), volumes)
    whole = tiny_direct.weights_of(run, 8)
    (run / "model_8.pt").write_bytes((run / "model_8.pt").read_bytes()[:-100])
    (run / "last_model.txt").write_text("")
    # The state of iteration 6 is there still: that of the checkpoint before.
    tiny_direct.direct_train(tmp_path, tiny_direct.changed(persistent(9), steps), volumes, resume=True)
    assert sum("goes on from model_6.pt" in message for message in caplog.messages) == 1
    for name, tensor in tiny_direct.weights_of(run, 8).items():
        assert torch.equal(tensor, whole[name])


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "another content"])
def test_a_damaged_state_ends_the_command_with_one_line(tmp_path, short_run, volumes, exit_with_one_line, kind):
    shutil.copytree(short_run, tmp_path / "run")
    path = tmp_path / "run" / "training_state_5_0.pt"
    if kind == "another content":
        torch.save({"chains": [1, 2]}, path)
    else:
        path.write_bytes({"text": b"damaged", "empty": b"", "truncated": path.read_bytes()[:-200]}[kind])
    with exit_with_one_line(str(path), "delete it"):
        tiny_direct.direct_train(tmp_path, persistent(8), volumes, resume=True)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, volumes):
    return tiny_direct.direct_train(tmp_path_factory.mktemp("short"), persistent(6), volumes)
