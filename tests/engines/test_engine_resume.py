"""A run that was interrupted goes on as it would have gone on: iterations, draws, persistent chains."""

import json

import pytest
import tiny_direct
import torch

from direct_deepen.engines import training_samples
from direct_deepen.engines.persistent_chains import PersistentChains
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
    content = torch.load(path, weights_only=True)
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
    states = stored_images(run / "persistent_chains_0.pt")
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
    assert (run / "persistent_chains_0.pt").is_file()
    monkeypatch.setattr(PersistentChains, "load", lambda *_: pytest.fail("chains were read"))
    tiny_direct.direct_train(tmp_path, persistent(6), volumes)


def test_chains_are_written_when_direct_writes_a_checkpoint_and_only_if_there_are_any(tmp_path, volumes):
    steps = {"training.checkpointer.checkpoint_steps": 6}
    run = tiny_direct.direct_train(tmp_path, tiny_direct.changed(persistent(8), steps), volumes)
    assert {path.name for path in run.glob("model_*.pt")} == {"model_6.pt", "model_7.pt"}
    assert torch.load(run / "persistent_chains_0.pt", weights_only=True)["iteration"] == 7
    none = tiny_direct.direct_train(tmp_path, tiny_direct.configuration(iterations=6), volumes, name="none")
    assert not list(none.glob("persistent_chains_*"))


# ---- What is refused


def test_a_damaged_file_of_chains_ends_the_command_with_one_line(tmp_path, volumes, exit_with_one_line):
    run = tiny_direct.direct_train(tmp_path, persistent(6), volumes)
    (run / "persistent_chains_0.pt").write_bytes(b"damaged")
    with exit_with_one_line(str(run / "persistent_chains_0.pt"), "delete it"):
        tiny_direct.direct_train(tmp_path, persistent(8), volumes, resume=True)


@pytest.mark.parametrize("text", ["", "model_8.pt"])
def test_a_damaged_note_of_the_last_checkpoint_ends_the_command_with_one_line(
    tmp_path, trained, volumes, exit_with_one_line, text
):
    run = tmp_path / "run"
    run.mkdir()
    (run / "last_model.txt").write_text(text)
    with exit_with_one_line(str(run / "last_model.txt"), "allowed", "model_<number>.pt"):
        tiny_direct.direct_train(tmp_path, tiny_direct.configuration(), volumes, resume=True)
