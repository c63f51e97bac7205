"""Files are complete or absent, and errors of the disk are one line."""

import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from direct_deepen.errors import DeepenError
from direct_deepen.files import disk_errors_reported, new_hdf5, open_hdf5, write_file, write_text


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
    with new_hdf5(tmp_path / "a.h5") as file:
        file["images"], file["text"] = images, b"bytes"
        file.attrs.update({"unit": "T", "levels": [0.1, 0.9]})
    with open_hdf5(tmp_path / "a.h5", "file") as file:
        assert list(file) == ["images", "text"]
        np.testing.assert_array_equal(file["images"], images)
        assert file["text"][()] == b"bytes"
        assert file.attrs["unit"] == "T"
        assert file.attrs["levels"].tolist() == [0.1, 0.9]


def test_a_full_disk_leaves_the_older_file_and_no_other(tmp_path, full_disk, one_line_error):
    path = tmp_path / "file.csv"
    write_text(path, "a")
    before = path.read_bytes()
    with full_disk(), one_line_error(f"{path}: cannot be written: No space left on device"):
        write_text(path, "b")
    with (
        full_disk(),
        one_line_error(f"{tmp_path / 'new.h5'}: cannot be written"),
        new_hdf5(tmp_path / "new.h5") as file,
    ):
        file["a"] = np.zeros(3)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


LIMITED = """
import resource, sys
import h5py
import numpy as np
from pathlib import Path
from direct_deepen.errors import DeepenError
from direct_deepen.files import new_hdf5

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    with new_hdf5(Path(sys.argv[1])) as file:
        file["small"] = np.zeros(1000)
except DeepenError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.parametrize("limit", [0, 100, 1500])
def test_a_limit_of_the_system_is_one_line_and_does_not_end_the_process(tmp_path, limit):
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
            write_file(path, b"content")
    assert (tmp_path / "file").read_text() == "not a folder"
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder"}


# ---- What others write


def test_a_full_disk_is_reported_whatever_torch_makes_of_it(tmp_path, one_line_error):
    path = tmp_path / "model_5.pt"
    expected = one_line_error(f"{path}: cannot be written: No space left on device")
    with expected, disk_errors_reported(path), open("/dev/full", "wb") as file:
        torch.save({"weights": torch.zeros(100_000)}, file)


def test_a_full_disk_is_found_behind_an_error_that_it_caused(tmp_path, one_line_error):
    with one_line_error("No space left"), disk_errors_reported(tmp_path):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")


def test_other_errors_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors_reported(tmp_path):
        (tmp_path / "none").read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"), disk_errors_reported(tmp_path):
        raise RuntimeError("out of memory")
    with pytest.raises(DeepenError, match="bad input"), disk_errors_reported(tmp_path):
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


def test_a_heap_in_which_hdf5_would_never_end_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["text"] = "a" * 100
        file["numbers"] = np.frombuffer(b"GCOL" * 100, dtype=np.uint8)
    content = path.read_bytes()
    with open_hdf5(path, "file") as file:
        assert file.attrs["text"] == "a" * 100
    # The first object behind the head of the heap.
    place = content.index(b"GCOL\1\0\0\0") + 16
    path.write_bytes(content[:place] + bytes(40) + content[place + 40 :])
    with (
        pytest.raises(DeepenError, match=rf"a.h5: no file: damaged, by zeros at byte {place}"),
        open_hdf5(path, "file"),
    ):
        pass
