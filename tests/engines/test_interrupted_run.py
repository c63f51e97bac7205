"""What is made of the files that a killed training left: which checkpoint is used, what is said, what is repaired."""

import os
from pathlib import Path

import pytest
import torch

from direct_deepen.engines.checkpoints import last_checkpoint, repair_run


@pytest.fixture
def repaired(tmp_path, caplog):
    """``repaired()``: the name of the checkpoint to resume from, and the warnings."""

    def run() -> tuple[str | None, list[str]]:
        caplog.clear()
        repair_run(tmp_path)
        found = last_checkpoint(tmp_path)
        assert not list(tmp_path.glob("*.part"))
        return None if found is None else found.name, [record.getMessage() for record in caplog.records]

    return run


def write_run(folder: Path, *numbers: int, noted: str | None) -> None:
    """A run in which checkpoints were written one a second, and then the note."""
    for second, number in enumerate(numbers):
        write_checkpoint(folder, number, second)
    if noted is not None:
        (folder / "last_model.txt").write_text(noted)
        os.utime(folder / "last_model.txt", (len(numbers), len(numbers)))


def write_checkpoint(folder: Path, number: int, second: int) -> None:
    torch.save({"model": {"weight": torch.ones(64)}, "number": number}, checkpoint(folder, number))
    os.utime(checkpoint(folder, number), (second, second))


def checkpoint(folder: Path, number: int) -> Path:
    return folder / f"model_{number}.pt"


def tear(path: Path, share: float) -> None:
    """Take the end off a file, and leave its time alone."""
    time = path.stat().st_mtime_ns
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    os.utime(path, ns=(time, time))


# ---- Nothing to repair


def test_a_whole_run_is_left_as_it_is(tmp_path, repaired):
    write_run(tmp_path, 6, 8, 10, noted="10")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert repaired() == ("model_10.pt", [])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_an_empty_folder_has_nothing_to_resume(repaired):
    assert repaired() == (None, [])


def test_an_older_checkpoint_that_was_noted_by_hand_is_used(tmp_path, repaired):
    write_run(tmp_path, 6, 8, 10, noted="8")
    assert repaired() == ("model_8.pt", [])


def test_times_that_a_copy_made_equal_or_mixed_up_do_not_matter(tmp_path, repaired):
    write_run(tmp_path, 10, 6, 8, noted="10")
    os.utime(tmp_path / "last_model.txt", (0, 0))
    assert repaired() == ("model_10.pt", [])


def test_a_note_of_a_checkpoint_that_somebody_removed_stays_if_there_is_no_other(tmp_path, repaired):
    write_run(tmp_path, noted="10")
    assert repaired() == ("model_10.pt", [])


# ---- Damage


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_a_torn_checkpoint_is_passed_over_and_named(tmp_path, repaired, share):
    write_run(tmp_path, 6, 8, noted="8")
    write_checkpoint(tmp_path, 10, 9)
    tear(checkpoint(tmp_path, 10), share)
    name, (line,) = repaired()
    assert name == "model_8.pt"
    assert "model_10.pt is incomplete" in line
    assert "goes on from model_8.pt" in line
    assert checkpoint(tmp_path, 10).exists()
    # What has been said once is not said again.
    assert repaired() == ("model_8.pt", [])


@pytest.mark.parametrize("noted", ["", "model_10.pt", "\0\0", "-1", "11"])
def test_a_note_that_says_nothing_is_replaced_by_the_newest_checkpoint(tmp_path, repaired, noted):
    write_run(tmp_path, 6, 8, 10, noted=noted)
    name, (line,) = repaired()
    assert name == "model_10.pt"
    assert f"last_model.txt holds {noted!r}" in line
    assert "goes on from model_10.pt" in line
    assert (tmp_path / "last_model.txt").read_text() == "10"
    assert repaired() == ("model_10.pt", [])


def test_a_checkpoint_written_after_the_note_is_used(tmp_path, repaired):
    write_run(tmp_path, 6, 8, noted="8")
    write_checkpoint(tmp_path, 10, 9)
    name, (line,) = repaired()
    assert name == "model_10.pt"
    assert "last_model.txt holds '8'" in line


def test_the_first_checkpoint_is_found_though_it_was_never_noted(tmp_path, repaired):
    write_run(tmp_path, 6, noted=None)
    name, (line,) = repaired()
    assert name == "model_6.pt"
    assert "last_model.txt is missing" in line


def test_everything_that_is_damaged_is_passed_over(tmp_path, repaired):
    write_run(tmp_path, 6, 8, 10, noted="")
    tear(checkpoint(tmp_path, 10), 0.5)
    tear(checkpoint(tmp_path, 8), 0.0)
    name, (line,) = repaired()
    assert name == "model_6.pt"
    assert all(word in line for word in ("holds ''", "model_10.pt is incomplete", "model_8.pt is incomplete"))


@pytest.mark.parametrize("noted", [None, "", "6"])
def test_without_a_whole_checkpoint_training_begins_anew(tmp_path, repaired, noted):
    write_run(tmp_path, 6, noted=noted)
    tear(checkpoint(tmp_path, 6), 0.5)
    name, (line,) = repaired()
    assert name is None
    assert "model_6.pt is incomplete" in line
    assert "begins anew" in line
    assert not (tmp_path / "last_model.txt").exists()


def test_a_note_without_any_checkpoint_is_removed(tmp_path, repaired):
    write_run(tmp_path, noted="")
    name, (line,) = repaired()
    assert name is None
    assert "begins anew" in line
    assert repaired() == (None, [])


def test_a_repair_that_is_killed_leaves_the_note_for_the_next(tmp_path, repaired, monkeypatch):
    write_run(tmp_path, 6, 8, noted="")

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", kill)
    with pytest.raises(KeyboardInterrupt):
        repair_run(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "last_model.txt").read_text() == ""
    assert repaired()[0] == "model_8.pt"


# ---- The log


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 1}\n{"a": 2}\n', '{"a": 1}\n{"a": 2}\n'),
        ('{"a": 1}\n{"a":', '{"a": 1}\n'),
        ('{"a": 1}\n{"a": 2}', '{"a": 1}\n'),
        ('{"a', ""),
        ("", ""),
    ],
)
def test_half_a_line_of_the_log_is_dropped(tmp_path, repaired, before, after):
    (tmp_path / "metrics.json").write_text(before)
    repaired()
    assert (tmp_path / "metrics.json").read_text() == after
