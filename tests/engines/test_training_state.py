"""The state beside a checkpoint: every process writes its own, before the checkpoint is there, and keeps two."""

import pytest
import torch
from direct.checkpointer import Checkpointer

from direct_deepen.engines.checkpoints import RunCheckpointer, state_path


@pytest.fixture
def checkpointer(tmp_path):
    """``checkpointer(rank)``: that of a process, whose state counts how often it was written."""

    def build(rank: int, *, iteration: int = -1) -> RunCheckpointer:
        theirs = Checkpointer(tmp_path, save_to_disk=rank == 0, model=torch.nn.Linear(2, 2), __author__="somebody")
        count = iter(range(100))
        return RunCheckpointer(theirs, lambda: {"rank": rank, "count": next(count)}, iteration, {}, {})

    return build


@pytest.fixture
def process(monkeypatch):
    """``process(rank)``: from now on this is the process of that rank."""
    return lambda rank: monkeypatch.setattr("direct.utils.communication.get_rank", lambda: rank)


def names(folder, pattern):
    return {path.name for path in folder.glob(pattern)}


def test_what_direct_writes_is_what_it_writes_without_the_state_but_for_the_settings(tmp_path, checkpointer):
    checkpointer(0).save(6)
    content = torch.load(tmp_path / "model_6.pt", weights_only=True)
    assert set(content) == {"model", "__author__", "__datetime__", "__trained_with__", "__training_energy__"}
    assert (tmp_path / "last_model.txt").read_text() == "6"
    assert torch.load(state_path(tmp_path, 6), weights_only=True) == {"rank": 0, "count": 0}


def test_the_state_is_there_before_the_checkpoint(tmp_path, checkpointer, monkeypatch):
    monkeypatch.setattr(Checkpointer, "save", lambda *_: pytest.fail("no state") if not seen() else None)

    def seen():
        return names(tmp_path, "training_state_*") == {"training_state_6_0.pt"}

    checkpointer(0).save(6)


def test_every_process_writes_its_state_and_the_first_alone_the_checkpoint(tmp_path, checkpointer, process):
    process(1)
    second = checkpointer(1)
    for iteration in (6, 8, 10):
        second.save(iteration)
    assert not names(tmp_path, "model_*")
    process(0)
    checkpointer(0).save(6)
    assert names(tmp_path, "*_0.pt") == {"training_state_6_0.pt"}
    assert names(tmp_path, "*_1.pt") == {"training_state_8_1.pt", "training_state_10_1.pt"}


def test_a_resumed_process_keeps_the_state_it_resumed_from_and_no_other(tmp_path, checkpointer):
    first = checkpointer(0)
    for iteration in (6, 8):
        first.save(iteration)
    # The checkpoint of iteration 8 was lost.
    checkpointer(0, iteration=6).save(7)
    assert names(tmp_path, "training_state_*") == {"training_state_6_0.pt", "training_state_7_0.pt"}
