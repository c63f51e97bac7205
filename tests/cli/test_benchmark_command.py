"""The grid of a benchmark: cells in processes of their own, done once, and one that fails loses no other."""

import csv
import json
from multiprocessing import Pipe

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
import yaml
from terminals import as_standard_error

from direct_deepen.evaluation.cell import CellRow, run_cell
from direct_deepen.evaluation.cell_posterior import PosteriorRow, coverage, posterior_row
from direct_deepen.evaluation.csv_files import read_csv
from direct_deepen.evaluation.grid import (
    _follow,
    _told,
    cell_folder,
    gather,
    paired_interval,
    pictures,
    run_grid,
    write_results,
)
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.study import Method, load_study
from direct_deepen.progress import progress_bar

COLUMNS = [
    "method", "mask", "case", "psnr", "ssim", "nmse", "seconds", "gradient_evaluations", "peak_memory_mb", "parameters",
    "seed", "tuned",
]  # fmt: skip


def content(study, **changes):
    """A study of two methods on one problem."""
    return {
        "test": "test",
        "validation": "validation",
        "reference": "deepen",
        "seed": 3,
        "problems": {"2d4x": str(study.configuration)},
        "methods": {
            "zero_filled": {"classical": "zero_filled"},
            "deepen": {"configuration": str(study.configuration), "checkpoint": str(study.checkpoint)},
        },
    } | changes


def written(path, content):
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


# ---- The study


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference": "other"}, ["reference", "'other'", "zero_filled, deepen"]),
        ({"no_such_key": 1}, ["no_such_key", "is no key", "validation"]),
        ({"methods": {}}, ["methods is empty"]),
        ({"seed": "x"}, ["seed", "'x'", "an integer"]),
        ({"methods": {"deepen": {"classical": "fourier"}}}, ["methods.deepen.classical", "'fourier'", "sense"]),
        ({"methods": {"deepen": {"configuration": "a.yaml"}}}, ["methods.deepen", "checkpoint is missing"]),
        ({"methods": {"deepen": {"classical": "sense", "problems": ["1d2x"]}}}, ["problems has '1d2x'", "2d4x"]),
        (
            {"methods": {"deepen": {"configuration": "a", "checkpoint": "b", "tune": {"key": "x", "values": []}}}},
            ["tune.values is empty"],
        ),
        ({"methods": {"deepen": 3}}, ["methods.deepen is 3"]),
    ],
)
def test_a_bad_study_is_refused_by_the_name_of_its_key(tmp_path, study, one_line_error, changes, words):
    with one_line_error(*words):
        load_study(written(tmp_path / "study.yaml", content(study, **changes)))


def test_a_missing_key_and_a_missing_file_are_named(tmp_path, study, one_line_error):
    incomplete = content(study)
    del incomplete["validation"]
    with one_line_error("validation is missing"):
        load_study(written(tmp_path / "study.yaml", incomplete))
    with one_line_error("none.yaml", "no such study"):
        load_study(tmp_path / "none.yaml")


def test_cells_are_the_problems_times_the_methods_that_take_part(tmp_path, study):
    methods = {
        "everywhere": {"classical": "sense"},
        "once": {"classical": "sense", "problems": ["b"]},
        "trained": {"configuration": "c.yaml", "checkpoint": "runs/{problem}/model.pt"},
    }
    problems = {"a": "a.yaml", "b": "b.yaml"}
    found = load_study(
        written(tmp_path / "study.yaml", content(study, methods=methods, problems=problems, reference="once"))
    )
    assert [(problem, method.name) for problem, method in found.cells()] == [
        ("a", "everywhere"), ("a", "trained"), ("b", "everywhere"), ("b", "once"), ("b", "trained"),
    ]  # fmt: skip
    assert str(found.methods[2].weights("b")) == "runs/b/model.pt"


# ---- Posteriors


@pytest.mark.parametrize("samples", [3, 16])
def test_an_interval_of_few_samples_holds_ninety_per_cent_of_what_they_are_drawn_from(samples):
    draws = torch.randn(samples + 1, 40000, generator=torch.Generator().manual_seed(samples))
    mean, std = draws[1:].mean(dim=0), draws[1:].std(dim=0)
    # 40000 pixels: a standard error of 0.0015.
    assert coverage(mean, std, draws[0], num_samples=samples) == pytest.approx(0.9, abs=0.006)
    assert coverage(mean, 0.5 * std, draws[0], num_samples=samples) < 0.8


def test_a_posterior_is_judged_inside_the_object_in_scaled_intensities_and_per_chain():
    reference = torch.zeros(1, 4, 4, dtype=torch.complex64)
    reference[0, :2] = 1.0
    arrays = {
        # The background is far off and must not count.
        "mean": torch.where(reference.abs() > 0, 1.2, 50.0) * 3,
        "std": torch.where(reference.abs() > 0, 0.2, 70.0) * 3,
        "posterior_seconds": torch.tensor([8.0]),
        "posterior_gradient_evaluations": torch.tensor([400.0]),
    }
    found = posterior_row(
        "deepen", "2d4x", "a#0", arrays, chains=4, num_samples=16, scale=torch.tensor([3.0]), reference=reference
    )
    assert (found.sample_seconds, found.sample_evaluations, found.num_samples) == (2.0, 100.0, 16)
    assert found.std == pytest.approx(0.2)
    assert found.error == pytest.approx(0.2)
    assert found.coverage_90 == 1.0


# ---- Cells


@pytest.fixture
def in_folder(study, monkeypatch):
    monkeypatch.chdir(study.folder)


@pytest.mark.usefixtures("in_folder")
def test_a_cell_scores_what_direct_predict_reconstructs(tmp_path, study):
    found = load_study(written(tmp_path / "study.yaml", content(study, seed=1)))
    run_cell(found, "2d4x", found.methods[1], tmp_path / "cell")
    rows = read_csv(tmp_path / "cell" / "rows.csv", CellRow)
    assert [row.case for row in rows] == ["a.h5#0", "a.h5#1", "b.h5#0", "b.h5#1"]
    # The posterior mean of `direct predict` with the same weights; its seed is another, the map is the same.
    assert all(row.parameters > 100 and row.gradient_evaluations > 15 and row.seconds > 0 for row in rows)
    assert all(10 < row.psnr < 60 for row in rows)
    posteriors = read_csv(tmp_path / "cell" / "posterior.csv", PosteriorRow)
    assert [row.case for row in posteriors] == [row.case for row in rows]
    for row in posteriors:
        assert row.num_samples >= 2
        assert row.sample_evaluations > 1
        assert row.sample_seconds > 0
        assert row.std > 0
        assert 0 <= row.coverage_90 <= 1
    assert {row.seed for row in rows} == {1}
    assert all(np.isnan(row.tuned) for row in rows)


@pytest.mark.usefixtures("in_folder")
def test_the_same_seed_samples_the_same_cell_and_another_seed_another(tmp_path, study):
    def sampled(folder, seed):
        found = load_study(written(tmp_path / "study.yaml", content(study, seed=seed)))
        run_cell(found, "2d4x", found.methods[1], tmp_path / folder)
        arrays = []
        for name in ("images", "std"):
            with h5py.File(tmp_path / folder / f"{name}.h5") as file:
                arrays += [file[label][()] for label in file]
        return arrays

    first, again, other = sampled("first", 1), sampled("again", 1), sampled("other", 2)
    assert len(first) == 8
    for mine, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(mine, same)
        assert not np.array_equal(mine, different)


@pytest.mark.usefixtures("in_folder")
def test_what_is_tuned_is_the_best_on_validation_data(tmp_path, study):
    methods = content(study)["methods"]
    scores = {}
    for values in ([0.2], [5.0], [0.2, 5.0]):
        methods["deepen"]["tune"] = {"key": "inference.prior_weight", "values": values}
        # Tuned on the test data themselves, so that the best can be told from the rows.
        found = load_study(written(tmp_path / "study.yaml", content(study, methods=methods, validation="test")))
        run_cell(found, "2d4x", found.methods[1], tmp_path / "cell")
        rows = read_csv(tmp_path / "cell" / "rows.csv", CellRow)
        scores[tuple(values)] = np.mean([row.psnr for row in rows])
        if len(values) == 2:
            assert rows[0].tuned == max(values, key=lambda value: scores[value,])
    assert scores[0.2, 5.0] == max(scores.values())
    assert scores[0.2,] != scores[5.0,]


@pytest.mark.usefixtures("in_folder")
def test_a_key_that_is_none_cannot_be_tuned(tmp_path, study, one_line_error):
    methods = content(study)["methods"]
    methods["deepen"]["tune"] = {"key": "inference.no_such_key", "values": [1.0]}
    found = load_study(written(tmp_path / "study.yaml", content(study, methods=methods)))
    with one_line_error("methods.deepen.tune.key", "no_such_key"):
        run_cell(found, "2d4x", found.methods[1], tmp_path / "cell")


@pytest.mark.usefixtures("in_folder")
def test_any_model_of_direct_takes_part_by_its_configuration_alone(tmp_path, study):
    config = tiny_direct.configuration("demo_varnet")
    config["model"] |= {"num_layers": 2, "regularizer_num_filters": 4, "regularizer_num_pull_layers": 1}
    del config["model"]["hidden_channels"]
    for dataset in (*config["training"]["datasets"], config["inference"]["dataset"]):
        dataset["transforms"]["normalization"]["scaling_key"] = "masked_kspace"
    path = tiny_direct.write_configuration(tmp_path / "varnet.yaml", config)
    checkpoint = tiny_direct.direct_train(tmp_path, config, study.test) / "model_7.pt"
    prediction = tiny_direct.direct_predict(tmp_path / "prediction", config, study.test, checkpoint)
    methods = content(study)["methods"] | {"varnet": {"configuration": str(path), "checkpoint": str(checkpoint)}}
    found = load_study(written(tmp_path / "study.yaml", content(study, methods=methods)))
    run_cell(found, "2d4x", found.methods[2], tmp_path / "cell")

    with h5py.File(tmp_path / "cell" / "images.h5") as cell, h5py.File(prediction / "a.h5") as direct:
        mine, theirs = cell["a.h5#1"][()], direct["reconstruction"][1]
    # The cell's images are in scaled intensities: equal up to one factor.
    factor = (mine * theirs).sum() / (theirs**2).sum()
    np.testing.assert_allclose(mine, factor * theirs, atol=1e-4 * np.abs(mine).max())


# ---- The grid


def test_a_cell_tells_its_stages_and_the_bar_follows(monkeypatch):
    terminal = as_standard_error(monkeypatch)
    receiver, sender = Pipe(duplex=False)
    for name, total in (("tune deepen", 2), ("test", 3)):
        assert list(_told(sender, range(total), name=name, unit="slice", total=total)) == list(range(total))
    sender.close()
    with progress_bar(name="2d4x deepen", unit="slice") as bar:
        _follow(receiver, bar, "2d4x deepen")
        assert (bar.n, bar.total, bar.desc) == (3, 3, "2d4x deepen, test: ")
    assert "2d4x deepen, tune deepen:   0%|" in terminal.getvalue()
    assert "| 0/3 [" in terminal.getvalue()


@pytest.mark.usefixtures("in_folder")
def test_cells_that_are_done_are_kept_and_one_that_fails_loses_no_other(tmp_path, study, run_command):
    methods = {
        "broken": {"configuration": str(study.configuration), "checkpoint": "none.pt"},
        "zero_filled": {"classical": "zero_filled"},
    }
    path = written(tmp_path / "study.yaml", content(study, methods=methods, reference="zero_filled"))
    result = run_command(["benchmark", str(tmp_path / "out"), "--study", str(path), "--jobs", "2"])
    assert result.code == 2
    (line,) = [line for line in result.errors if "error:" in line]
    assert "1 of 2 cells failed" in line
    assert "2d4x broken: none.pt: no such checkpoint" in line
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [row["method"] for row in rows] == 4 * ["zero_filled"]
    assert json.loads((tmp_path / "out" / "versions.json").read_text())["seed"] == 3
    # What DIRECT says while it builds a model, and the traceback, are in a file and nowhere else.
    said = (cell_folder(tmp_path / "out", "2d4x", "broken") / "output.log").read_text()
    assert "DIRECT is not intended for clinical use" in said
    assert "Traceback" in said
    assert result.errors == [line]
    # Mend what was broken: the other cell is not run again.
    done = cell_folder(tmp_path / "out", "2d4x", "zero_filled") / "rows.csv"
    before = done.stat().st_mtime_ns
    methods["broken"]["checkpoint"] = str(study.checkpoint)
    found = load_study(written(path, content(study, methods=methods, reference="zero_filled")))
    assert run_grid(found, tmp_path / "out") == []
    assert done.stat().st_mtime_ns == before
    table = write_results(found, tmp_path / "out")
    assert "| broken |" in table
    assert table == (tmp_path / "out" / "table.md").read_text()
    (shown,) = pictures(found, tmp_path / "out", "2d4x", count=1)
    assert set(shown.images) == {"broken", "zero_filled"}
    # What was broken samples a posterior.
    assert "| posterior |" in table
    assert set(shown.std) == {"broken"}
    assert len(read_csv(tmp_path / "out" / "posterior.csv", PosteriorRow)) == 4
    score = quality(shown.images["broken"], shown.reference).psnr
    rows = [row for row in gather(found, tmp_path / "out") if (row.method, row.case) == ("broken", shown.case)]
    assert rows[0].psnr == pytest.approx(score, abs=1e-3)
    assert (tmp_path / "out" / "2d4x.png").stat().st_size > 10_000


@pytest.mark.usefixtures("in_folder")
def test_where_every_cell_fails_the_line_says_why(tmp_path, study, run_command):
    methods = {"broken": {"configuration": str(study.configuration), "checkpoint": "none.pt"}}
    path = written(tmp_path / "study.yaml", content(study, methods=methods, reference="broken"))
    result = run_command(["benchmark", str(tmp_path / "out"), "--study", str(path)])
    assert result.code == 2
    (line,) = [line for line in result.errors if "error:" in line]
    assert "1 of 1 cells failed: 2d4x broken: none.pt: no such checkpoint" in line


def row(case, psnr):
    return CellRow("m", "2d4x", case, psnr, 0.9, 0.01, 1.0, 0.0, 0.0, 0, 0, float("nan"))


def test_a_paired_interval_is_that_of_the_differences_of_volumes():
    # Differences 0.5 and 1.5 in one volume, 2 and 1 in the others; the rows are found by case, not by place.
    better = [row("a.h5#0", 3.0), row("a.h5#1", 5.0), row("b#.h5#0", 7.0), row("c.h5#0", 9.0)]
    other = [row("c.h5#0", 8.0), row("b#.h5#0", 5.0), row("a.h5#1", 3.5), row("a.h5#0", 2.5)]
    mean, half = paired_interval(better, other)
    assert mean == pytest.approx(1.25)
    # Volumes 1, 2, 1: standard deviation √(1/3), over √3; 4.303 is the 97.5 % point of Student's t with two degrees.
    assert half == pytest.approx(4.303 * (1 / 3) ** 0.5 / 3**0.5, rel=1e-3)
    assert np.isnan(paired_interval(better[:2], other)[1])


@pytest.mark.usefixtures("in_folder")
def test_more_jobs_than_cores_are_refused(tmp_path, study, one_line_error):
    found = load_study(written(tmp_path / "study.yaml", content(study)))
    for jobs in (0, 1000):
        with one_line_error(f"jobs is {jobs}", "allowed: 1 to"):
            run_grid(found, tmp_path / "out", jobs=jobs)


def test_a_method_that_is_not_trained_has_no_weights():
    with pytest.raises(AssertionError):
        Method("sense", classical="sense").weights("2d4x")
