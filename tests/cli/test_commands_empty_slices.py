"""Empty slices in commands that compare with references: zero and without metrics, or left out; told once."""

import logging

import h5py
import numpy as np
import pytest

from direct_deepen.evaluation.benchmark import ROWS, reconstruct_test_data, run_folder
from direct_deepen.evaluation.study import load_study
from direct_deepen.evaluation.tables import read_results


@pytest.fixture
def data(tmp_path, study):
    """The test data with an empty first slice of the first volume."""
    folder = tmp_path / "test"
    folder.mkdir()
    for path in study.test.glob("*.h5"):
        with h5py.File(path) as file, h5py.File(folder / path.name, "w") as other:
            for name in file:
                file.copy(name, other)
            other.attrs.update(file.attrs)
            if path.stem == "a":
                other["kspace"][0] = 0
    return folder


def test_a_file_with_an_empty_slice_is_compared_with_its_data(data, study, run_command, copied):
    path = copied / "a.posterior.h5"
    with h5py.File(path, "r+") as file:
        for name in ("map", "mean", "std", "std_complex", "quantiles", "scale"):
            file[name][0] = 0
    result = run_command(["posterior", str(path), "--cfg", str(study.configuration), "--data-root", str(data)])
    assert result.code == 0, result.errors
    (line,) = result.errors
    assert "1 of 2 slices hold no signal, and are left out" in line
    assert "a.h5 (1 of 2)" in line
    # Of the two slices one has a figure.
    (row,) = [line for line in result.output.splitlines() if "PSNR (slice maximum), MAP" in line]
    assert row.count("dB") == 1


def test_a_file_of_a_slice_that_is_empty_in_other_data_is_refused(data, study, run_command, copied):
    with_data = ["--cfg", str(study.configuration), "--data-root", str(data)]
    result = run_command(["posterior", str(copied / "a.posterior.h5"), *with_data])
    assert result.code == 2
    assert "intensity scales" in result.errors[-1]


def test_a_benchmark_leaves_empty_slices_out_and_says_so_once(tmp_path, data, study, caplog):
    found = load_study(study.write(tmp_path / "study.yaml", "zero_filled", test=str(data)))
    (run,) = found.runs()
    folder = run_folder(tmp_path / "out", run)
    with caplog.at_level(logging.WARNING):
        reconstruct_test_data(found, run, folder)
    lines = [record.getMessage() for record in caplog.records if "no signal" in record.getMessage()]
    assert len(lines) == 1
    assert "1 of 4 slices hold no signal, and are left out" in lines[0]
    rows = read_results([folder / ROWS])
    assert rows["case"].tolist() == ["a.h5#1", "b.h5#0", "b.h5#1"]
    assert np.isfinite(rows["psnr"]).all()
