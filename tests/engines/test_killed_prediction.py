"""A prediction that the system kills, anywhere and in the middle of files: the next run ends as if nothing happened."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from killed_process import CALL, Kill, predict


@pytest.fixture(scope="module")
def whole(tmp_path_factory, mean_config, volumes, checkpoint):
    """A prediction of both volumes that nothing disturbed, and what it did."""
    output = tmp_path_factory.mktemp("whole") / "output"
    return SimpleNamespace(output=output, record=predict(output, mean_config, volumes, checkpoint, count_calls=True))


def files_of(output):
    return {path.name for path in output.iterdir() if path.suffix in (".h5", ".json")}


def assert_equal_files(found, expected):
    """Metrics, arrays and attributes are the same to the last bit, but for times; and nothing is left half written."""
    assert files_of(found) == files_of(expected)
    assert not list(found.glob("*.part"))
    for path in sorted(expected.glob("*.h5")):
        with h5py.File(path) as file, h5py.File(found / path.name) as other:
            assert set(file) == set(other)
            assert set(file.attrs) == set(other.attrs)
            for name in file:
                if not name.endswith("seconds"):
                    np.testing.assert_array_equal(other[name][()], file[name][()], err_msg=f"{path.name} {name}")
            for name, value in file.attrs.items():
                np.testing.assert_array_equal(other.attrs[name], value, err_msg=f"{path.name} {name}")
    name = "metrics_inference.json"
    assert json.loads((found / name).read_text()) == json.loads((expected / name).read_text())


def kills_of(record, count):
    """``count`` kills: in the middle of what is written to files and before renaming them, then in between."""
    generator = np.random.default_rng(count)
    seen = {}
    for kind, size in record.operations:
        yield Kill(kind, seen.get(kind, 0), size // 2)
        seen[kind] = seen.get(kind, 0) + 1
    for _ in range(count):
        yield Kill(CALL, int(generator.integers(record.calls)))


def computed_slices(output):
    """The slices that were reconstructed in any process, in order: file and number."""
    batches = map(json.loads, output.with_suffix(".samples").read_text().splitlines())
    return [(Path(name).stem, number) for batch in batches for name, number in batch]


def volume_of(operation):
    """The volume whose posterior a file operation writes or renames; None for other files."""
    name, found, _ = operation.rpartition(" ")[2].partition(".posterior.h")
    return name if found else None


@pytest.mark.parametrize("count", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_prediction_becomes_the_undisturbed_one(tmp_path, mean_config, volumes, checkpoint, whole, count):
    kinds = [kind for kind, _ in whole.record.operations]
    # Whichever the file system names first.
    first, second = dict.fromkeys(filter(None, map(volume_of, kinds)))
    assert sorted(computed_slices(whole.output)) == [(name, number) for name in "ab" for number in (0, 1)]
    kills = list(kills_of(whole.record, count))
    in_second = [kill for kill in kills if volume_of(kill.kind) == second and not kill.kind.startswith("remove")]
    assert [kill.kind.partition(" ")[0] for kill in in_second] == ["write", "rename"]
    if count == 3:
        # By then something is done that must not be done again.
        kills = in_second + kills[-1:]
    seen = []
    for number, kill in enumerate(kills):
        output = tmp_path / str(number)
        assert predict(output, mean_config, volumes, checkpoint, kill=kill) is None, kill
        before = computed_slices(output) if output.with_suffix(".samples").exists() else []
        done = {path: path.stat().st_mtime_ns for path in output.glob("*.posterior.h5")}
        finished = {path.name.removesuffix(".posterior.h5") for path in done}
        assert finished == {first} or kill not in in_second
        assert predict(output, mean_config, volumes, checkpoint) is not None
        again = computed_slices(output)[len(before) :]
        assert sorted(again) == [(name, number) for name in sorted({"a", "b"} - finished) for number in (0, 1)]
        assert {path: path.stat().st_mtime_ns for path in done} == done
        assert_equal_files(output, whole.output)
        seen.append(len(finished))
    assert count == 3 or set(seen) == {0, 1, 2}


@pytest.mark.parametrize("first", [pytest.param(True, marks=pytest.mark.slow), False], ids=["first volume", "second"])
def test_an_interrupted_prediction_ends_with_130_and_its_files_are_whole(
    tmp_path, mean_config, volumes, checkpoint, whole, first
):
    named = [name for name in map(volume_of, dict(whole.record.operations)) if name]
    kills = [
        Kill(kind, 0, size // 2, signal.SIGINT)
        for kind, size in whole.record.operations
        if volume_of(kind) and (volume_of(kind) == named[0]) == first
    ]
    if not first:
        kills.append(Kill(CALL, int(0.8 * whole.record.calls), signal=signal.SIGINT))
    assert len(kills) >= 2
    for number, kill in enumerate(kills):
        output = tmp_path / str(number)
        assert predict(output, mean_config, volumes, checkpoint, kill=kill) is None, kill
        log = output.with_suffix(".log").read_text()
        assert "interrupted; what was finished is on disk" in log
        assert "Traceback" not in log
        for path in output.glob("*.h5"):
            with h5py.File(path) as file, h5py.File(whole.output / path.name) as expected:
                assert set(file) == set(expected)
        assert predict(output, mean_config, volumes, checkpoint) is not None
        assert_equal_files(output, whole.output)
