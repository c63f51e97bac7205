"""No prediction writes over data: what is read, and what lies where results are to go, stays as it is byte by byte."""

import hashlib
import os
import shutil

import pytest
import tiny_direct


def digests(folder):
    """The sha256 of every volume below a folder, links followed."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.h5"))}


@pytest.fixture
def data(tmp_path, volume):
    """A folder of its own of one volume, ``test``."""
    return shutil.copytree(volume, tmp_path / "data")


def hard_link(tmp_path, data):
    output = tmp_path / "out"
    output.mkdir()
    os.link(data / "test.h5", output / "test.h5")
    return output


def link_to_file(tmp_path, data):
    output = tmp_path / "out"
    output.mkdir()
    (output / "test.h5").symlink_to(data / "test.h5")
    return output


def link_to_folder(tmp_path, data):
    (tmp_path / "link").symlink_to(data)
    return tmp_path / "link"


def folder_of_linked_data(tmp_path, data):
    """The data are links, and results are to go where these lead to."""
    raw = data.rename(tmp_path / "raw")
    data.mkdir()
    (data / "test.h5").symlink_to(raw / "test.h5")
    return raw


def other_data(tmp_path, data):
    """Another volume of the same name, which is not read."""
    return tiny_direct.write_volumes(tmp_path / "other", ["test"], seed=5)


OUTPUTS = {
    "the folder of the data": lambda tmp_path, data: data,
    "a relative path to it": lambda tmp_path, data: data / ".." / "data",
    **{f.__name__: f for f in (link_to_folder, link_to_file, hard_link, folder_of_linked_data, other_data)},
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_prediction_over_data_is_refused_and_they_are_kept(
    tmp_path, map_config, data, checkpoint, exit_with_one_line, output
):
    folder = OUTPUTS[output](tmp_path, data)
    before = digests(tmp_path)
    with exit_with_one_line("test.h5" if folder.name in ("out", "other") else folder.name, "allowed"):
        tiny_direct.direct_predict(folder, map_config, data, checkpoint)
    assert digests(tmp_path) == before


def test_the_output_folder_is_looked_at_where_the_run_has_another(
    tmp_path, map_config, data, checkpoint, exit_with_one_line
):
    # `direct predict data --experiment_directory run`: DIRECT tells the engine run, and writes to data.
    before = digests(tmp_path)
    with exit_with_one_line("data", "allowed"):
        tiny_direct.direct_predict(data, map_config, data, checkpoint, experiment=tmp_path / "run")
    assert digests(tmp_path) == before
