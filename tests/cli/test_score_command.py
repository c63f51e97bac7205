"""The benchmark from data and predictions to table and figures."""

import csv
import math
import warnings
from contextlib import chdir
from dataclasses import asdict

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
from matplotlib import image as matplotlib_image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from direct_deepen.cli.main import main
from direct_deepen.evaluation.classical import CLASSICAL
from direct_deepen.evaluation.csv_files import write_csv
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.scoring import REGULARIZATIONS, Row, markdown_table, summarize, tune

SUMMARY_COLUMNS = [
    "method", "psnr", "psnr_std", "ssim", "ssim_std", "nmse", "nmse_std", "seconds", "gradient_evaluations",
    "parameters", "slices",
]  # fmt: skip
CASE_COLUMNS = ["method", "case", "psnr", "ssim", "nmse", "seconds", "gradient_evaluations", "parameters"]
METHODS = ["zero_filled", "sense", "l1_wavelet", "total_variation", "deepen_map", "deepen_mmse", "perfect"]


@pytest.fixture(scope="module")
def tested(study):
    return study.cases(study.test)


@pytest.fixture(scope="module")
def perfect(tmp_path_factory, study, tested):
    """A prediction in DIRECT's format, without posterior, that is the reference itself."""
    folder = tmp_path_factory.mktemp("perfect")
    for volume in ("a.h5", "b.h5"):
        mine = [case for case in tested if case.volume == volume]
        with h5py.File(folder / volume, "w") as file:
            images = [case.problem.to_data_units(case.reference).abs() for case in mine]
            file["reconstruction"] = torch.cat(images).numpy()
            file["sampling_mask"] = torch.cat([case.problem.A.sampling_mask[:, 0] for case in mine]).numpy()
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory, study, perfect):
    """The output folder of one benchmark of the trained energy and the perfect prediction."""
    folder = tmp_path_factory.mktemp("benchmark")
    arguments = study.arguments(folder, figure_slices="1")
    with chdir(study.folder):
        assert main([*arguments, "--prediction", "perfect", str(perfect), str(study.checkpoint)]) == 0
    return folder


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- Tables


def test_there_is_one_row_for_every_method_with_the_columns_of_the_summary(output):
    rows = rows_of(output / "results.csv")
    assert [row["method"] for row in rows] == METHODS
    for row in rows:
        assert list(row) == SUMMARY_COLUMNS
        assert row["slices"] == "4"
        assert all(value != "" for value in row.values())


def test_there_is_one_row_for_every_method_and_slice(output):
    rows = rows_of(output / "cases.csv")
    expected = [(method, case) for case in ("a.h5#0", "a.h5#1", "b.h5#0", "b.h5#1") for method in METHODS]
    assert [(row["method"], row["case"]) for row in rows] == expected
    assert all(list(row) == CASE_COLUMNS for row in rows)


def test_the_summary_is_mean_and_standard_deviation_over_slices(output):
    rows = rows_of(output / "cases.csv")
    for summary in rows_of(output / "results.csv"):
        mine = [row for row in rows if row["method"] == summary["method"]]
        for name in ("psnr", "ssim", "nmse"):
            values = [float(row[name]) for row in mine]
            # Six digits are written of everything.
            assert float(summary[name]) == pytest.approx(np.mean(values), rel=1e-4)
            assert float(summary[f"{name}_std"]) == pytest.approx(np.std(values), rel=1e-2, abs=1e-4 * np.mean(values))


def test_scores_are_those_of_scikit_image_on_what_direct_and_the_engine_wrote(output, study, tested):
    scores = {(row["method"], row["case"]): row for row in rows_of(output / "cases.csv")}
    for case in tested:
        reference = case.problem.to_data_units(case.reference)[0].abs().numpy()
        with h5py.File(study.prediction / case.volume.replace(".h5", ".posterior.h5")) as file:
            images = {kind: np.abs(file[kind][case.slice_number]) for kind in ("map", "mean")}
        for method, image in (("deepen_map", images["map"]), ("deepen_mmse", images["mean"])):
            found = scores[method, f"{case.volume}#{case.slice_number}"]
            peak = reference.max()
            # The scale is divided out and multiplied back in single precision; six digits are written.
            assert float(found["psnr"]) == pytest.approx(
                peak_signal_noise_ratio(reference, image, data_range=peak), rel=1e-4
            )
            ssim = structural_similarity(reference.astype(float), image.astype(float), data_range=float(peak))
            assert float(found["ssim"]) == pytest.approx(ssim, rel=1e-4)
            nmse = ((image - reference) ** 2).sum() / (reference**2).sum()
            assert float(found["nmse"]) == pytest.approx(nmse, rel=1e-3)


def test_a_perfect_prediction_has_no_error(output):
    (row,) = [row for row in rows_of(output / "results.csv") if row["method"] == "perfect"]
    # The rounding of single precision, seven digits.
    assert float(row["psnr"]) > 120
    assert float(row["ssim"]) == pytest.approx(1.0, abs=1e-6)
    assert float(row["nmse"]) < 1e-10


def test_sense_with_a_tuned_weight_beats_the_zero_filled_image(output):
    rows = {row["method"]: row for row in rows_of(output / "results.csv")}
    assert float(rows["sense"]["psnr"]) > float(rows["zero_filled"]["psnr"]) + 1


def test_seconds_evaluations_and_parameters_are_those_of_the_prediction(output, study):
    rows = {row["method"]: row for row in rows_of(output / "results.csv")}
    posteriors = [h5py.File(study.prediction / f"{volume}.posterior.h5") for volume in ("a", "b")]
    for method, figures in (("deepen_map", "map"), ("deepen_mmse", "posterior")):
        for column, name in (("seconds", "seconds"), ("gradient_evaluations", "gradient_evaluations")):
            values = np.concatenate([file[f"{figures}_{name}"] for file in posteriors])
            assert float(rows[method][column]) == pytest.approx(values.mean(), rel=1e-4)
        assert rows[method]["parameters"] == "298"
    assert rows["sense"]["parameters"] == rows["zero_filled"]["parameters"] == "0"
    assert float(rows["sense"]["seconds"]) > 0


def test_the_table_in_markdown_has_a_line_for_every_method_and_says_how_sense_was_tuned(output):
    table = (output / "table.md").read_text(encoding="utf-8")
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == METHODS
    assert len({line.count("|") for line in lines}) == 1
    assert "4 slices" in table
    assert "tuned on validation" in table


# ---- Figures


def test_figures_are_pictures_with_many_shades(output):
    for name in ("comparison.png", "posterior.png"):
        pixels = matplotlib_image.imread(output / name)
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 100


def test_the_posterior_is_drawn_whatever_the_prediction_is_called(tmp_path, study, run_command):
    arguments = study.arguments(tmp_path, prediction=("mine", study.prediction, study.checkpoint), figure_slices="9")
    result = run_command(arguments)
    assert result.code == 0
    assert result.errors == []
    assert (tmp_path / "posterior.png").is_file()
    assert "mine_mmse" in result.output


def test_without_samples_there_is_no_posterior_to_draw(tmp_path, study, perfect, run_command):
    arguments = study.arguments(tmp_path, prediction=("perfect", perfect, study.checkpoint), figure_slices="1")
    assert run_command(arguments).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "cases.csv", "table.md", "comparison.png"}


# ---- What scores depend on


def test_scores_do_not_depend_on_what_direct_divides_the_data_by(tmp_path, study, output, run_command):
    config = tiny_direct.with_transforms(tiny_direct.configuration(), {"normalization.scaling_key": "masked_kspace"})
    path = tiny_direct.write_configuration(tmp_path / "scaled.yaml", config)
    assert run_command(study.arguments(tmp_path / "out", cfg=path, figure_slices="1")).code == 0
    expected = {row["method"]: row for row in rows_of(output / "results.csv")}
    for row in rows_of(tmp_path / "out" / "results.csv"):
        assert float(row["psnr"]) == pytest.approx(float(expected[row["method"]]["psnr"]), abs=1e-2)


def test_a_prediction_of_map_alone_gives_one_row(tmp_path, study, copied, run_command):
    for path in copied.glob("*.posterior.h5"):
        with h5py.File(path, "r+") as file:
            for name in [name for name in file if name in ("mean", "std", "std_complex") or "posterior" in name]:
                del file[name]
    arguments = study.arguments(tmp_path / "out", prediction=("deepen", copied, study.checkpoint), figure_slices="1")
    assert run_command(arguments).code == 0
    assert [row["method"] for row in rows_of(tmp_path / "out" / "results.csv")] == [
        "zero_filled",
        "sense",
        "l1_wavelet",
        "total_variation",
        "deepen_map",
    ]


def test_a_prediction_of_another_system_gives_one_row_by_its_name(tmp_path, study, copied, run_command):
    for path in copied.glob("*.posterior.h5"):
        with h5py.File(path, "r+") as file:
            arrays = {"image": file["map"][()], "seconds": file["map_seconds"][()], "scale": file["scale"][()]}
            for name in list(file):
                del file[name]
            for name, array in arrays.items():
                file[name] = array
    arguments = study.arguments(tmp_path / "out", prediction=("mol", copied, study.checkpoint), figure_slices="1")
    assert run_command(arguments).code == 0
    row = rows_of(tmp_path / "out" / "results.csv")[-1]
    assert row["method"] == "mol"
    assert float(row["gradient_evaluations"]) == 0.0
    assert float(row["seconds"]) == pytest.approx(
        np.mean([seconds for path in copied.glob("*.posterior.h5") for seconds in h5py.File(path)["seconds"][()]]),
        rel=1e-4,
    )


# ---- Parts


@pytest.mark.parametrize("method", list(CLASSICAL))
def test_the_weight_of_a_method_is_the_best_of_the_candidates_on_validation_data(study, method):
    validation = study.cases(study.validation)

    def mean_psnr(weight):
        images = [CLASSICAL[method](c.problem.A, c.problem.masked_kspace, regularization=weight) for c in validation]
        return np.mean([quality(x[0], c.reference[0]).psnr for x, c in zip(images, validation, strict=True)])

    scores = [mean_psnr(weight) for weight in REGULARIZATIONS]
    assert tune(validation)[method] == REGULARIZATIONS[int(np.argmax(scores))]
    # A best candidate at either end would say that the range is too narrow.
    assert 0 < int(np.argmax(scores)) < len(scores) - 1


def test_tuning_on_no_data_is_refused(one_line_error):
    with one_line_error("validation"):
        tune([])


def test_rows_are_averaged_by_method_in_the_order_they_first_appear(tmp_path):
    rows = [
        Row("second", "a#0", 30.0, 0.9, 0.02, 1.0, 10.0, 5),
        Row("first", "a#0", 20.0, 0.8, 0.1, 2.0, 0.0, 0),
        Row("second", "a#1", 32.0, 0.7, 0.04, 3.0, 30.0, 5),
    ]
    second, first = summarize(rows)
    assert (second.method, second.psnr, second.psnr_std, second.slices) == ("second", 31.0, 1.0, 2)
    assert (second.seconds, second.gradient_evaluations, second.parameters) == (2.0, 20.0, 5)
    assert (first.method, first.psnr, first.psnr_std, first.slices) == ("first", 20.0, 0.0, 1)
    write_csv(tmp_path / "rows.csv", [asdict(row) for row in rows])
    assert [float(row["psnr"]) for row in rows_of(tmp_path / "rows.csv")] == [30.0, 20.0, 32.0]
    assert "| second | 31.00 ± 1.00 |" in markdown_table([second, first])


def test_a_method_that_errs_nowhere_has_an_infinite_score(tmp_path):
    rows = [Row("perfect", "a#0", math.inf, 1.0, 0.0, 1.0, 0.0, 0)]
    write_csv(tmp_path / "rows.csv", [asdict(row) for row in rows])
    assert rows_of(tmp_path / "rows.csv")[0]["psnr"] == "inf"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (summary,) = summarize(rows)
    assert summary.psnr == math.inf
    assert math.isnan(summary.psnr_std)
