"""Files are whole or not there, and what the disk refuses is told in one line."""

import errno
import os
import subprocess
import sys
from contextlib import nullcontext

import h5py
import numpy as np
import pytest
import torch

from direct_deepen.errors import DeepenError
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.files import refusals_told, require_room, write_file, write_hdf5, write_text

ENOUGH = b"x" * 10


def test_a_file_is_written_with_its_folders_and_replaces_an_older_one(tmp_path):
    path = tmp_path / "a folder" / "µ" / "file.bin"
    write_file(path, b"older")
    write_file(path, b"newer")
    assert path.read_bytes() == b"newer"
    write_text(path, "λ = 1\r\n")
    assert path.read_bytes() == "λ = 1\r\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_arrays_and_attributes_are_read_as_they_were_written(tmp_path):
    images = np.arange(6).reshape(2, 3) * (1 + 2j)
    write_hdf5(tmp_path / "a.h5", [("images", images), ("text", b"bytes")], {"unit": "T", "levels": [0.1, 0.9]})
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["images", "text"]
        np.testing.assert_array_equal(file["images"], images)
        assert file["text"][()] == b"bytes"
        assert file.attrs["unit"] == "T"
        assert file.attrs["levels"].tolist() == [0.1, 0.9]


def test_a_full_disk_leaves_the_older_file_and_no_other(tmp_path, full_disk, one_line_error):
    path = tmp_path / "file.csv"
    write_csv(path, [{"a": 1}])
    before = path.read_bytes()
    with full_disk(), one_line_error(f"{path}: cannot be written: No space left on device"):
        write_csv(path, [{"a": 2}])
    with full_disk(), one_line_error(f"{tmp_path / 'new.h5'}: cannot be written"):
        write_hdf5(tmp_path / "new.h5", [("a", np.zeros(3))], {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from direct_deepen.errors import DeepenError
from direct_deepen.files import write_hdf5

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    write_hdf5(Path(sys.argv[1]), [("small", np.zeros(1000))], {})
except DeepenError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.parametrize("limit", [0, 100, 1500])
def test_a_limit_of_the_system_is_told_and_does_not_end_the_process(tmp_path, limit):
    # h5py itself ends with a segmentation fault where HDF5 closes a file that it could not write.
    path = tmp_path / "a.h5"
    command = [sys.executable, "-c", LIMITED, str(path), str(limit)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert finished.returncode == 1
    assert finished.stderr == f"refused: {path}: cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_and_a_file_that_is_a_folder_are_named(tmp_path, one_line_error):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.csv", tmp_path / "folder"):
        with one_line_error(f"{path}: cannot be written"):
            write_file(path, ENOUGH)
    assert (tmp_path / "file").read_text() == "not a folder"
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder"}


def test_a_read_only_disk_is_told(tmp_path, monkeypatch, one_line_error):
    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with one_line_error(f"{tmp_path / 'a'}: cannot be written: Read-only file system"):
        write_file(tmp_path / "a", ENOUGH)


# ---- What others write


def test_what_torch_makes_of_a_full_disk_is_told_too(tmp_path, one_line_error):
    path = tmp_path / "model_5.pt"
    told = one_line_error(f"{path}: cannot be written: No space left on device")
    with told, refusals_told(path), open("/dev/full", "wb") as file:
        torch.save({"weights": torch.zeros(100_000)}, file)


def test_a_refusal_while_another_refusal_is_handled_is_found(tmp_path, one_line_error):
    with one_line_error("No space left"), refusals_told(tmp_path):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")


def test_other_errors_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), refusals_told(tmp_path):
        (tmp_path / "none").read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"), refusals_told(tmp_path):
        raise RuntimeError("out of memory")
    with pytest.raises(DeepenError, match="bad input"), refusals_told(tmp_path):
        raise DeepenError("bad input")


def test_what_killed_processes_left_of_a_file_goes_with_the_next_write(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, running, other = (
        tmp_path / name
        for name in (f"a[1].h5.{ended.pid}.part", f"a[1].h5.{os.getppid()}.part", f"b.h5.{ended.pid}.part")
    )
    for path in (left, running, other):
        path.write_bytes(b"half")
    write_file(tmp_path / "a[1].h5", b"whole")
    assert not left.exists()
    assert running.exists()  # another process may be writing it now
    assert other.exists()
    assert (tmp_path / "a[1].h5").read_bytes() == b"whole"


# ---- Room


@pytest.mark.parametrize(
    ("refusal", "told"),
    [(errno.ENOSPC, True), (errno.EFBIG, True), (errno.EACCES, True), (errno.EINVAL, False), (errno.EOPNOTSUPP, False)],
)
def test_room_is_refused_by_full_disks_and_not_by_those_that_know_no_trial(
    tmp_path, monkeypatch, one_line_error, refusal, told
):
    def refuse(*_):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with one_line_error(f"{tmp_path}: cannot be written: {os.strerror(refusal)}") if told else nullcontext():
        require_room(tmp_path, [10])
    assert list(tmp_path.iterdir()) == []
