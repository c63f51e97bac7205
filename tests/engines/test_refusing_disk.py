"""A full disk, a folder that may not be written to: DIRECT's commands end with one line, and what is done is kept."""

import builtins
import errno
import os
import subprocess
from pathlib import Path

import pytest
import recorded
import tiny_direct
import torch
from direct.utils.events import JSONWriter

from direct_deepen.engines.output_folder import write_reconstruction


def six_and_eight():
    """A configuration that writes the checkpoints 6 and 8."""
    config = tiny_direct.configuration(iterations=9, warm_start=6)
    return tiny_direct.changed(config, {"training.checkpointer.checkpoint_steps": 6})


def files_of(run):
    """The names of checkpoints, of their parts, and of folders they may have been written in."""
    return {path.name for path in run.iterdir() if "model" in path.name or "checkpoint" in path.name}


@pytest.fixture
def full_after_the_first_checkpoint(monkeypatch):
    """DIRECT's second checkpoint goes to a device that is always full."""
    opened = []

    def on_a_full_device(path, mode="r", **options):
        if mode == "wb":
            opened.append(path)
        if len(opened) > 1:
            Path(path).write_bytes(b"half a checkpoint")
        return builtins.open("/dev/full" if len(opened) > 1 else path, mode, **options)

    monkeypatch.setattr("direct.checkpointer.open", on_a_full_device, raising=False)


@pytest.mark.usefixtures("full_after_the_first_checkpoint")
def test_a_checkpoint_that_does_not_fit_is_named_and_the_one_before_can_be_resumed(
    tmp_path, volumes, exit_with_one_line
):
    run = tmp_path / "run"
    with exit_with_one_line(f"{run / 'model_8.pt'}: cannot be written: No space left on device"):
        tiny_direct.direct_train(tmp_path, six_and_eight(), volumes)
    assert files_of(run) == {"model_6.pt", "last_model.txt"}
    assert (run / "last_model.txt").read_text() == "6"
    assert torch.load(run / "model_6.pt", weights_only=True)["model"]


def test_checkpoints_are_where_direct_looks_for_them(trained):
    assert {"model_8.pt", "last_model.txt"} == files_of(trained)
    assert (trained / "last_model.txt").read_text() == "8"


def test_a_log_that_does_not_fit_ends_training_with_one_line_about_its_folder(
    tmp_path, volumes, exit_with_one_line, monkeypatch
):
    def refuse(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(JSONWriter, "write", refuse)
    with exit_with_one_line(f"{tmp_path / 'run'}: cannot be written: No space left on device"):
        tiny_direct.direct_train(tmp_path, six_and_eight(), volumes)


def test_a_posterior_that_does_not_fit_ends_prediction_and_the_next_run_computes_only_what_is_missing(
    tmp_path, mean_config, volumes, checkpoint, exit_with_one_line, full_disk, reconstructed
):
    config = tiny_direct.recorded(mean_config)

    def fill_at_the_second(_):
        if len(reconstructed) == 2:
            disk.__enter__()

    disk = full_disk()
    with (
        recorded.listening(recorded.BEFORE_BATCH, fill_at_the_second),
        exit_with_one_line(".posterior.h5: cannot be written: No space left on device"),
    ):
        tiny_direct.direct_predict(tmp_path, config, volumes, checkpoint)
    disk.__exit__(None, None, None)
    first, second = reconstructed
    assert {path.name for path in tmp_path.glob("*.h5*")} == {f"{first}.h5", f"{first}.posterior.h5"}
    tiny_direct.direct_predict(tmp_path, config, volumes, checkpoint)
    assert reconstructed == [first, second, second]
    assert {path.name for path in tmp_path.glob("*.h5*")} == {
        f"{name}{kind}.h5" for name in "ab" for kind in ("", ".posterior")
    }


def test_a_reconstruction_that_does_not_fit_ends_prediction_and_nothing_is_computed_twice(
    tmp_path, mean_config, volumes, checkpoint, exit_with_one_line, full_disk, reconstructed, monkeypatch
):
    config = tiny_direct.recorded(mean_config)

    def write_on_a_full_disk(*arguments):
        with full_disk():
            write_reconstruction(*arguments)

    with monkeypatch.context() as patch, exit_with_one_line(".h5: cannot be written: No space left on device"):
        patch.setattr("direct_deepen.engines.prediction.write_reconstruction", write_on_a_full_disk)
        tiny_direct.direct_predict(tmp_path, config, volumes, checkpoint)
    (first,) = reconstructed
    assert [path.name for path in tmp_path.glob("*.h5*")] == [f"{first}.posterior.h5"]
    tiny_direct.direct_predict(tmp_path, config, volumes, checkpoint)
    assert sorted(reconstructed) == ["a", "b"]


def test_a_folder_that_may_not_be_written_to_ends_training_with_one_line(
    tmp_path, volumes, exit_with_one_line, monkeypatch
):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "run" / ".checkpoint-1"))

    monkeypatch.setattr("direct_deepen.engines.checkpoints.TemporaryDirectory", refuse)
    with exit_with_one_line(".checkpoint-1: cannot be opened: Permission denied"):
        tiny_direct.direct_train(tmp_path, six_and_eight(), volumes)


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path, volumes):
    run, dead = tmp_path / "run", subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    left = run / f".checkpoint-{dead.stdout.strip()}-abc"
    living = run / f".checkpoint-{os.getppid()}-abc"
    for folder in (left, living):
        folder.mkdir(parents=True)
        (folder / "model_6.pt").write_bytes(b"half")
    tiny_direct.direct_train(tmp_path, six_and_eight(), volumes)
    assert not left.exists()
    assert living.exists()
