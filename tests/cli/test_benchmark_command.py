"""A benchmark: runs in processes of their own, done once, and one that fails loses no other."""

import csv
import json
from contextlib import chdir
from pathlib import Path

import h5py
import killed_process
import numpy as np
import pytest
import tiny_direct
import torch
import yaml
from matplotlib import image as matplotlib_image

from direct_deepen.evaluation.benchmark import (
    gather,
    pictures,
    reconstruct_test_data,
    run_folder,
    run_study,
    write_results,
)
from direct_deepen.evaluation.classical import CLASSICAL, REGULARIZATIONS
from direct_deepen.evaluation.methods import Estimate, Reconstructor, best_value, classical
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.study import load_study
from direct_deepen.evaluation.tables import read_results

COLUMNS = {
    "method", "mask", "case", "psnr", "ssim", "nmse", "seconds", "gradient_evaluations", "peak_memory_mb", "parameters",
    "seed", "tuned",
}  # fmt: skip
LABELS = ["a.h5#0", "a.h5#1", "b.h5#0", "b.h5#1"]


@pytest.fixture
def in_folder(study, monkeypatch):
    monkeypatch.chdir(study.folder)


def run_one(path, folder):
    """Do the last run of a study in this process, and return its rows."""
    study = load_study(path)
    with tiny_direct.process_as_before():
        reconstruct_test_data(study, study.runs()[-1], folder)
    return read_results([folder / "rows.csv"])


def content(path):
    """All arrays of an HDF5 file by their full names."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


# ---- The study

TRAINED = {"configuration": "a.yaml", "checkpoint": "b.pt"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference": "other"}, ["reference", "'other'", "zero_filled"]),
        ({"no_such_key": 1}, ["no_such_key is no key", "validation"]),
        ({"methods": {}}, ["methods is empty"]),
        ({"seed": "x"}, ["seed", "'x'", "Integer"]),
        ({"methods": {"m": {"classical": "fourier"}}}, ["methods.m.classical", "'fourier'", "zero_filled, sense"]),
        ({"methods": {"m": {"configuration": "a.yaml"}}}, ["methods.m.checkpoint is missing"]),
        ({"methods": {"m": {"predictions": "folder"}}}, ["methods.m.checkpoint is missing"]),
        ({"methods": {"m": {}}}, ["methods.m has no kind", "classical, configuration, predictions"]),
        ({"methods": {"m": TRAINED | {"classical": "sense"}}}, ["methods.m has classical and configuration"]),
        ({"methods": {"m": {"classical": "sense", "problems": ["1d2x"]}}}, ["problems has '1d2x'", "2d4x"]),
        ({"methods": {"m": TRAINED | {"tune": {"key": "x", "values": []}}}}, ["tune.values is empty"]),
        ({"methods": {"m": TRAINED | {"tune": {"key": "x", "value": [1]}}}}, ["tune.value is no key", "key, values"]),
        ({"methods": {"m": {"classical": "sense", "tune": {"key": "x", "values": [1]}}}}, ["methods.m.tune: allowed"]),
        ({"methods": {"m": 3}}, ["methods", "3"]),
    ],
)
def test_a_bad_study_is_refused_by_the_name_of_its_key(tmp_path, study, one_line_error, changes, words):
    changes = {"reference": "m"} | changes if "methods" in changes else changes
    with one_line_error(*words):
        load_study(study.write(tmp_path / "study.yaml", "zero_filled", **changes))


def test_a_missing_key_and_a_missing_file_are_named(tmp_path, study, one_line_error):
    path = study.write(tmp_path / "study.yaml", "zero_filled")
    incomplete = yaml.safe_load(path.read_text())
    del incomplete["validation"]
    path.write_text(yaml.safe_dump(incomplete))
    with one_line_error("study.yaml", "validation"):
        load_study(path)
    with one_line_error("none.yaml", "no such file"):
        load_study(tmp_path / "none.yaml")


def test_runs_are_the_problems_times_the_methods_that_take_part(tmp_path, study):
    methods = {
        "everywhere": {"classical": "sense"},
        "once": {"classical": "sense", "problems": ["b"]},
        "trained": {"configuration": "c.yaml", "checkpoint": "runs/{problem}/model.pt"},
    }
    found = load_study(
        study.write(tmp_path / "study.yaml", methods=methods, problems={"a": "a.yaml", "b": "b.yaml"}, reference="once")
    )
    assert [(run.problem, run.name) for run in found.runs()] == [
        ("a", "everywhere"), ("a", "trained"), ("b", "everywhere"), ("b", "once"), ("b", "trained"),
    ]  # fmt: skip
    run = found.runs()[-1]
    assert run.path(run.method.checkpoint) == Path("runs/b/model.pt")


def test_the_study_of_the_demo_names_what_its_script_makes(monkeypatch):
    with chdir(tiny_direct.REPOSITORY):
        monkeypatch.setenv("DEMO", "elsewhere")
        monkeypatch.setenv("SEED", "3")
        found = load_study(Path("projects/demo/study.yaml"))
        assert (found.seed, found.test) == (3, Path("elsewhere/data/test"))
        for name in ("varnet", "deepen"):
            config = yaml.safe_load(Path(f"configs/demo_{name}.yaml").read_text())
            last = config["training"]["num_iterations"] - 1
            assert found.methods[name].checkpoint == f"elsewhere/{name}/model_{last}.pt"
        assert all(path.is_file() for path in found.problems.values())


# ---- Single runs


@pytest.mark.usefixtures("in_folder")
def test_a_trained_method_is_scored_with_its_samples(tmp_path, study):
    rows = run_one(study.write(tmp_path / "study.yaml", "deepen", seed=1), tmp_path / "run")
    assert list(rows["case"]) == LABELS
    assert set(rows.columns) >= COLUMNS
    assert rows["psnr"].between(10, 60).all()
    # Its own posterior of three chains, of which ten states each are kept.
    assert (rows["num_samples"] == 30).all()
    assert (rows[["seconds", "sample_seconds", "std", "error"]] > 0).all(axis=None)
    assert (rows["gradient_evaluations"] > 3 * rows["sample_evaluations"]).all()
    assert (rows["sample_evaluations"] > 1).all()
    assert rows["coverage_90"].between(0, 1).all()
    assert (rows["parameters"] == 298).all()
    assert (rows["seed"] == 1).all()
    assert rows["tuned"].isna().all()


@pytest.mark.usefixtures("in_folder")
def test_the_same_seed_samples_the_same_and_another_seed_another(tmp_path, study):
    def sampled(folder, seed):
        run_one(study.write(tmp_path / "study.yaml", "deepen", seed=seed, test="validation"), tmp_path / folder)
        return content(tmp_path / folder / "images.h5") | content(tmp_path / folder / "std.h5")

    first, again, other = sampled("first", 1), sampled("again", 1), sampled("other", 2)
    assert list(first) == ["deepen/v.h5#0"]
    for label, mine in first.items():
        np.testing.assert_array_equal(mine, again[label])
        assert not np.array_equal(mine, other[label])


@pytest.mark.usefixtures("in_folder")
def test_what_is_tuned_is_the_best_on_validation_data(tmp_path, study):
    method = study.methods()["deepen"]
    scores = {}
    for values in ([0.2], [5], [0.2, 5]):
        tuned = {"deepen": method | {"tune": {"key": "inference.prior_weight", "values": values}}}
        # Tuned on the test data themselves, so that the best can be told from the rows.
        rows = run_one(study.write(tmp_path / "study.yaml", methods=tuned, test="validation"), tmp_path / "run")
        scores[tuple(values)] = rows["psnr"].mean()
        if len(values) == 2:
            assert rows["tuned"][0] == max(values, key=lambda value: scores[value,])
    assert scores[0.2, 5] == max(scores.values())
    assert scores[0.2,] != scores[5,]


@pytest.mark.usefixtures("in_folder")
@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("inference.no_such_key", [1.0], ["model.inference.no_such_key"]),
        ("inference.num_steps", [2.5], ["model.inference.num_steps", "2.5"]),
        ("inference.prior_weight", [1.0, -1.0], ["prior_weight", "-1.0"]),
    ],
)
def test_what_cannot_be_set_cannot_be_tuned(tmp_path, study, one_line_error, key, values, words):
    methods = {"deepen": study.methods()["deepen"] | {"tune": {"key": key, "values": values}}}
    with one_line_error(*words):
        run_one(study.write(tmp_path / "study.yaml", methods=methods), tmp_path / "run")


@pytest.mark.usefixtures("in_folder")
def test_a_method_and_its_problem_have_the_same_scale(tmp_path, study, one_line_error):
    config = tiny_direct.changed(yaml.safe_load(study.configuration.read_text()), {"model.intensity_scale": "object"})
    problem = tiny_direct.write_configuration(tmp_path / "other.yaml", config)
    file = study.write(
        tmp_path / "study.yaml", methods={"deepen": study.methods()["deepen"]}, problems={"2d4x": str(problem)}
    )
    with one_line_error("model.intensity_scale is 'field_of_view'", "allowed with", "other.yaml"):
        run_one(file, tmp_path / "run")


def test_a_setting_keeps_its_type(tmp_path, study):
    engine = tiny_direct.build_engine(tmp_path, yaml.safe_load(study.configuration.read_text()))
    before = engine.settings
    for key, value in (("num_steps", 15), ("start", "noise"), ("prior_weight", 2.0)):
        engine.configure(f"inference.{key}", value)
        found = getattr(engine.inference, key)
        assert found == value
        assert type(found) is type(value)
    assert engine.settings.noise_std == before.noise_std


@pytest.mark.parametrize("method", list(CLASSICAL))
def test_the_weight_of_a_classical_method_is_the_best_of_the_candidates_on_validation_data(study, method):
    validation = study.cases(study.validation)

    def mean_psnr(weight):
        images = [CLASSICAL[method](c.problem.A, c.problem.masked_kspace, regularization=weight) for c in validation]
        return np.mean([quality(x[0], c.reference[0]).psnr for x, c in zip(images, validation, strict=True)])

    scores = [mean_psnr(weight) for weight in REGULARIZATIONS]
    assert best_value(classical(method), validation) == REGULARIZATIONS[int(np.argmax(scores))]
    # A best candidate at either end would say that the range is too narrow.
    assert 0 < int(np.argmax(scores)) < len(scores) - 1


def test_a_list_may_be_what_is_tuned(study):
    reference = Reconstructor(
        lambda shares, case: {"": Estimate(sum(shares) * case.reference[0], 0.0)}, candidates=[[1, 1], [0.5, 0.5], [0]]
    )
    assert best_value(reference, study.cases(study.validation)) == [0.5, 0.5]


def test_tuning_on_no_data_is_refused(one_line_error):
    with one_line_error("validation"):
        best_value(classical("sense"), [])


@pytest.mark.usefixtures("in_folder")
def test_any_model_of_direct_takes_part_by_its_configuration_alone(tmp_path, study):
    config = tiny_direct.configuration("demo_varnet")
    config["model"] |= {"num_layers": 2, "regularizer_num_filters": 4, "regularizer_num_pull_layers": 1}
    del config["model"]["hidden_channels"]
    for dataset in (*config["training"]["datasets"], config["inference"]["dataset"]):
        dataset["transforms"]["normalization"] = {"scaling_key": "masked_kspace"}
    path = tiny_direct.write_configuration(tmp_path / "varnet.yaml", config)
    checkpoint = tiny_direct.direct_train(tmp_path, config, study.test) / "model_7.pt"
    prediction = tiny_direct.direct_predict(tmp_path / "prediction", config, study.test, checkpoint)
    methods = {
        "varnet": {"configuration": str(path), "checkpoint": str(checkpoint)},
        "predicted": {"predictions": str(prediction), "checkpoint": str(checkpoint)},
    }
    found = load_study(study.write(tmp_path / "study.yaml", methods=methods))
    images = []
    for run in found.runs():
        with tiny_direct.process_as_before():
            reconstruct_test_data(found, run, tmp_path / run.name)
        images.append(content(tmp_path / run.name / "images.h5"))
    for label in LABELS:
        mine, theirs = images[0][f"varnet/{label}"], images[1][f"predicted/{label}"]
        np.testing.assert_allclose(mine, theirs, atol=1e-4 * np.abs(mine).max())
    # Of models without posterior files nobody knows how long they took.
    assert read_results([tmp_path / "predicted" / "rows.csv"])["seconds"].isna().all()


# ---- All runs


@pytest.mark.usefixtures("in_folder")
def test_runs_that_are_done_are_kept_and_one_that_fails_loses_no_other(tmp_path, study, run_command, monkeypatch):
    # Four processes that need not import DIRECT; a new one is that of the next test.
    killed_process.fork_runs_of_benchmarks(monkeypatch)
    broken = {"broken": study.methods()["deepen"] | {"checkpoint": "none.pt"}}
    others = {name: study.methods()[name] for name in ("zero_filled", "predicted")}
    path = study.write(tmp_path / "study.yaml", methods=broken | others, reference="predicted_map")
    output = tmp_path / "out"
    result = run_command(["benchmark", str(output), "--study", str(path), "--jobs", "2", "--figure-slices", "1"])
    assert result.code == 2
    (line,) = [line for line in result.errors if "error:" in line]
    assert "1 of 3 runs failed" in line
    assert "2d4x broken: none.pt: no such checkpoint" in line
    with (output / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) >= COLUMNS
    assert [row["method"] for row in rows] == 4 * ["zero_filled"] + 4 * ["predicted_map", "predicted_mmse"]
    assert json.loads((output / "versions.json").read_text())["seed"] == 3
    assert (output / "table.md").read_text() in result.output
    for name in ("comparison", "posterior"):
        pixels = matplotlib_image.imread(output / f"{name}.png")
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 100
    # What DIRECT says while it builds a model, and the traceback, are in a file and nowhere else.
    found = load_study(path)
    failed, *kept = (run_folder(output, run) for run in found.runs())
    assert "Traceback" in (failed / "output.log").read_text()
    assert (failed / "error.txt").read_text() == "none.pt: no such checkpoint"
    assert result.errors == [line]

    # Mend what was broken: the others are not run again.
    before = [(folder / "rows.csv").stat().st_mtime_ns for folder in kept]
    mended = {"broken": study.methods()["deepen"]}
    found = load_study(study.write(path, methods=mended | others, reference="predicted_map"))
    assert run_study(found, output) == []
    assert [(folder / "rows.csv").stat().st_mtime_ns for folder in kept] == before
    assert not (failed / "error.txt").exists()
    assert write_results(found, output) == (output / "table.md").read_text()
    (shown,) = pictures(found, output, "2d4x", count=1)
    assert set(shown.images) == {"broken", "zero_filled", "predicted_map", "predicted_mmse"}
    assert set(shown.std) == {"broken", "predicted"}
    results = gather(found, output).set_index(["method", "case"])
    for method, image in shown.images.items():
        assert results["psnr"][method, shown.case] == pytest.approx(quality(image, shown.reference).psnr, abs=1e-3)
    assert (results["num_samples"].dropna() == 30).all()


@pytest.mark.usefixtures("in_folder")
def test_where_every_run_fails_the_line_says_why(tmp_path, study, run_command):
    methods = {"broken": study.methods()["deepen"] | {"checkpoint": "none.pt"}}
    path = study.write(tmp_path / "study.yaml", methods=methods)
    result = run_command(["benchmark", str(tmp_path / "out"), "--study", str(path)])
    assert result.code == 2
    (line,) = [line for line in result.errors if "error:" in line]
    assert "1 of 1 runs failed: 2d4x broken: none.pt: no such checkpoint" in line


@pytest.mark.usefixtures("in_folder")
def test_more_jobs_than_cores_are_refused(tmp_path, study, one_line_error):
    found = load_study(study.write(tmp_path / "study.yaml", "zero_filled"))
    for jobs in (0, 1000):
        with one_line_error(f"jobs is {jobs}", "allowed: 1 to"):
            run_study(found, tmp_path / "out", jobs=jobs)


def test_a_run_leaves_the_threads_as_they_were(tmp_path, study, monkeypatch):
    monkeypatch.chdir(study.folder)
    before = torch.get_num_threads()
    run_one(study.write(tmp_path / "study.yaml", "zero_filled"), tmp_path / "run")
    assert torch.get_num_threads() == before
