"""A prediction of which something fails: what is finished is on disk, and what is not is said."""

import os
import signal
import tracemalloc
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from direct.utils.writers import write_output_to_h5
from killed_process import CONTEXT
from test_bad_inputs import KSPACE, with_value, write

from direct_deepen.data.cases import inference_dataset
from direct_deepen.data.fastmri_file import ismrmrd_header
from direct_deepen.engines.output_folder import write_reconstruction
from direct_deepen.files import locked_folder
from direct_deepen.posterior.posterior_file import PosteriorWriter

EMPTY = KSPACE * np.array([1, 0], np.complex64)[:, None, None, None]


def warnings_of(caplog, words):
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records]


def files_of(folder):
    return {path.name for path in folder.glob("*.h5")}


def one_slice_batches(config):
    return tiny_direct.changed(config, {"inference.batch_size": 1})


# ---- A later volume fails


@pytest.mark.parametrize("metrics", [True, False])
def test_volumes_that_are_finished_are_written_when_a_later_one_fails_and_not_computed_again(
    tmp_path, map_config, checkpoint, exit_with_one_line, reconstructed, metrics
):
    data = tmp_path / "data"
    changes = {} if metrics else {"inference.metrics": []}
    config = tiny_direct.changed(tiny_direct.recorded(map_config), changes)
    for name in "abc":
        write(data / f"{name}.h5", with_value(KSPACE, np.nan) if name == "b" else KSPACE)
    # In the order that DIRECT is told.
    config = tiny_direct.changed(config, {"inference.dataset.filenames_filter": [f"data/{name}.h5" for name in "abc"]})
    with exit_with_one_line("b.h5", "slice 1", "NaN"):
        tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint)
    assert files_of(tmp_path / "out") == {"a.h5", "a.posterior.h5"}
    write(data / "b.h5", KSPACE)
    tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint)
    assert reconstructed == ["a", "b", "c"]
    assert files_of(tmp_path / "out") == {f"{name}{kind}.h5" for name in "abc" for kind in ("", ".posterior")}


def test_a_reconstruction_is_written_as_direct_writes_it(tmp_path):
    generator = torch.Generator().manual_seed(0)
    volume, mask = (torch.rand(2, 1, 8, 6, generator=generator) for _ in range(2))
    for name, masks in (("with", mask), ("without", None)):
        write_output_to_h5(([(volume, masks, tmp_path / f"{name}.h5")], {}), tmp_path / "direct")
        write_reconstruction(tmp_path / "ours" / f"{name}.h5", volume, masks)
        with (
            h5py.File(tmp_path / "direct" / f"{name}.h5") as expected,
            h5py.File(tmp_path / f"ours/{name}.h5") as found,
        ):
            assert {key: (value.dtype, value[()].tobytes()) for key, value in found.items()} == {
                key: (value.dtype, value[()].tobytes()) for key, value in expected.items()
            }


# ---- Empty slices


@pytest.mark.parametrize("kind", ["map", "mean"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_empty_slice_is_zero_and_not_converged_and_the_rest_is_as_without_it(
    tmp_path, checkpoint, request, caplog, kind, batch_size
):
    config = tiny_direct.changed(request.getfixturevalue(f"{kind}_config"), {"inference.batch_size": batch_size})
    data = tmp_path / "data"
    write(data / "a.h5")
    write(data / "c.h5", EMPTY)
    output = tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint)
    (line,) = warnings_of(caplog, "no signal")
    assert "1 of 4 slices" in line
    assert "c.h5 (1 of 2)" in line
    write(data / "c.h5")
    whole = tiny_direct.direct_predict(
        tmp_path / "whole", tiny_direct.changed(config, {"inference.batch_size": 1}), data, checkpoint
    )
    with h5py.File(output / "c.posterior.h5") as found, h5py.File(whole / "c.posterior.h5") as expected:
        assert found["converged"][1] == np.False_
        assert found["slice_number"][()].tolist() == [0, 1]
        assert not found[kind][1].any()
        for name in expected:
            assert found[name].dtype == expected[name].dtype
            if not name.endswith("seconds"):
                np.testing.assert_array_equal(found[name][0], expected[name][0], err_msg=name)
        if kind == "mean":
            assert np.isnan(found["split_r_hat"][1]).all()
            assert not found["std"][1].any()
            assert not found["samples"][1].any() if "samples" in found else True
    with h5py.File(output / "c.h5") as found:
        assert found["reconstruction"][0].any()
        assert not found["reconstruction"][1].any()


def test_a_volume_of_empty_slices_is_named_and_the_others_are_predicted(tmp_path, map_config, checkpoint, caplog):
    data = tmp_path / "data"
    write(data / "a.h5", EMPTY * 0)
    write(data / "b.h5", EMPTY[::-1])
    output = tiny_direct.direct_predict(tmp_path / "out", one_slice_batches(map_config), data, checkpoint)
    assert files_of(output) == {"b.h5", "b.posterior.h5"}
    (line,) = warnings_of(caplog, "no signal")
    assert "a.h5 (all 2)" in line
    # It is gone on from.
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.posterior.h5")}
    tiny_direct.direct_predict(output, one_slice_batches(map_config), data, checkpoint)
    assert {path: path.stat().st_mtime_ns for path in output.glob("*.posterior.h5")} == before


# ---- Files that cannot be read


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def write_on(path, ready, end):
    with h5py.File(path, "r+"):
        ready.set()
        end.wait()


def hold(folder, ready, end):
    with locked_folder(folder, "direct predict"):
        ready.set()
        end.wait()


@contextmanager
def in_another_process(action, path):
    """The process that has done something, until it is killed."""
    ready, end = CONTEXT.Event(), CONTEXT.Event()
    other = CONTEXT.Process(target=action, args=(path, ready, end))
    other.start()
    assert ready.wait(60)
    try:
        yield other
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.join(60)


@pytest.fixture
def two(tmp_path):
    """A folder of two volumes."""
    return tiny_direct.write_volumes(tmp_path / "data", ["a", "b"])


def test_a_truncated_or_locked_file_among_good_ones_is_told_before_anything_is_computed(
    tmp_path, map_config, checkpoint, two, exit_with_one_line, training_config
):
    with in_another_process(write_on, two / "b.h5"), exit_with_one_line("1 of 2 files not read", "b.h5", "lock"):
        tiny_direct.direct_predict(tmp_path / "locked", map_config, two, checkpoint)
    truncate(two / "b.h5")
    with exit_with_one_line("1 of 2 files not read", "b.h5", "truncated"):
        tiny_direct.direct_predict(tmp_path / "truncated", map_config, two, checkpoint)
    with exit_with_one_line("training.datasets[0]", "1 of 2 files not read", "b.h5", "truncated"):
        tiny_direct.direct_train(tmp_path / "runs", training_config, two)
    assert not files_of(tmp_path / "locked") | files_of(tmp_path / "truncated")


def test_names_of_a_filter_that_are_no_files_are_told(tmp_path, map_config, checkpoint, two, exit_with_one_line):
    config = tiny_direct.changed(map_config, {"inference.dataset.filenames_filter": ["data/a.h5", "data/c.h5"]})
    with exit_with_one_line("1 of 2 files not read", "data/c.h5: no such file"):
        tiny_direct.direct_predict(tmp_path / "out", config, two, checkpoint)


def test_files_of_a_pattern_are_all_there_is_to_read(tmp_path, map_config, checkpoint, two):
    truncate(two / "b.h5")
    config = tiny_direct.changed(map_config, {"inference.dataset.regex_filter": ".*a.h5"})
    output = tiny_direct.direct_predict(tmp_path / "out", config, two, checkpoint)
    assert files_of(output) == {"a.h5", "a.posterior.h5"}


def test_what_macos_keeps_beside_files_is_passed_over_and_the_last_line_says_so(
    tmp_path, map_config, checkpoint, two, caplog, training_config
):
    (two / "._a.h5").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    output = tiny_direct.direct_predict(tmp_path / "out", map_config, two, checkpoint)
    assert files_of(output) == {f"{name}{kind}.h5" for name in "ab" for kind in ("", ".posterior")}
    assert "1 of 3 files not read" in lines_of(caplog)[-1]
    assert "._a.h5" in lines_of(caplog)[-1]
    tiny_direct.direct_train(tmp_path / "runs", training_config, two)
    assert "1 of 3 files not read" in lines_of(caplog)[-1]
    path = tiny_direct.write_configuration(tmp_path / "a.yaml", map_config)
    assert len(inference_dataset(path, two)) == 4


# ---- Two predictions at once


def test_nothing_is_left_of_a_lock(tmp_path):
    for _ in range(2):
        with locked_folder(tmp_path / "new", "direct predict"):
            (file,) = (tmp_path / "new").iterdir()
            assert file.read_text().startswith(f"process {os.getpid()} on ")
        assert not list((tmp_path / "new").iterdir())


def test_a_folder_that_another_prediction_writes_to_is_refused_until_it_has_ended_however(
    tmp_path, map_config, volume, checkpoint, exit_with_one_line
):
    with in_another_process(hold, tmp_path) as other:
        with exit_with_one_line(f"{tmp_path}: another `direct predict` writes there", f"process {other.pid}"):
            tiny_direct.direct_predict(tmp_path, map_config, volume, checkpoint)
        assert not files_of(tmp_path)
    assert (tmp_path / ".direct-predict.lock").exists()
    tiny_direct.direct_predict(tmp_path, map_config, volume, checkpoint)
    assert files_of(tmp_path) == {"test.h5", "test.posterior.h5"}
    assert not (tmp_path / ".direct-predict.lock").exists()


# ---- Memory


@pytest.mark.parametrize("metrics", [True, False])
def test_a_volume_is_let_go_of_when_it_is_written(tmp_path, map_config, checkpoint, monkeypatch, metrics):
    changes = {"model.inference.max_iterations": 1} | ({} if metrics else {"inference.metrics": []})
    config = tiny_direct.changed(map_config, changes)
    data = tiny_direct.write_volumes(tmp_path / "data", [f"v{i}" for i in range(6)])
    seen, alive = [], []

    def write_and_count(path, volume, mask):
        alive.append(sum(tensor.numel() for tensor in seen))
        seen.extend((volume, mask))
        write_reconstruction(path, volume, mask)

    monkeypatch.setattr("direct_deepen.engines.prediction.write_reconstruction", write_and_count)
    tiny_direct.direct_predict(tmp_path / "out", config, data, checkpoint)
    # It was all of them: 16 KiB a volume here, of image and mask.
    assert alive == [0] * 6


def test_posteriors_that_are_written_leave_nothing_in_memory(tmp_path):
    volumes = [tmp_path / f"v{i}.h5" for i in range(50)]
    writer = PosteriorWriter(tmp_path, dict.fromkeys(volumes, 4), {path: {} for path in volumes})
    image, sizes = 64 * 64 * 8, []
    tracemalloc.start()
    for volume in volumes:
        for number in range(4):
            writer.add(volume, number, {"mean": np.zeros((64, 64), np.complex64)})
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # Of a volume of 131 kB it is 1.3 kB: paths, and what HDF5 remembers of names.
    assert sizes[-1] - sizes[4] < 45 * 0.02 * 4 * image


# ---- What is said of the volume


def test_a_posterior_file_has_the_voxels_of_the_header_of_its_volume(tmp_path, map_config, checkpoint):
    # 160 mm of 16 rows, 120 mm of 24 columns, one slice 5 mm thick.
    encoded, shown = ismrmrd_header(2, 32, 32).split("<reconSpace>")
    header = f"{encoded}<reconSpace>{shown.replace('<x>32</x><y>32</y>', '<x>16</x><y>24</y>')}"
    fov = "<fieldOfView_mm><x>160</x><y>120</y><z>5</z></fieldOfView_mm></reconSpace>"
    write(tmp_path / "data" / "a.h5", header=header.replace("</reconSpace>", fov).encode())
    write(tmp_path / "data" / "b.h5")
    config = tiny_direct.with_transforms(map_config, {"cropping.crop": None})
    output = tiny_direct.direct_predict(tmp_path / "out", config, tmp_path / "data", checkpoint)
    with h5py.File(output / "a.posterior.h5") as file:
        assert file.attrs["reconstruction_size"].tolist() == [16, 24]
        assert file.attrs["voxel_size"].tolist() == [10, 5, 5]
    with h5py.File(output / "b.posterior.h5") as file:
        assert "voxel_size" not in file.attrs
