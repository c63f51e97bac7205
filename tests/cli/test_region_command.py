"""``direct-deepen region``: the table of regions is that of `Posterior.region`, and what is no region gets one line."""

import csv
from contextlib import chdir
from types import SimpleNamespace

import h5py
import nibabel
import numpy as np
import pytest
import torch
from sampled_file import draw_samples, write_sampled

from direct_deepen import Posterior
from direct_deepen.cli.main import main
from direct_deepen.inference import Samples
from direct_deepen.posterior.nifti import write_nifti
from direct_deepen.posterior.posterior_file import read_posterior

SLICES, CHAINS, KEEP, ROWS, COLUMNS = 3, 5, 2, 16, 12


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    samples = draw_samples(SLICES, CHAINS, KEEP, ROWS, COLUMNS)
    path = write_sampled(folder / "a.posterior.h5", samples, chains=CHAINS, reconstruction_size=[12, 10])
    labels = np.zeros((SLICES, ROWS, COLUMNS), dtype=np.int16)
    labels[0, 4:8, 3:6] = 1
    labels[1, 5:7, 3:9] = 1
    labels[1, 9:12, 5:7] = 4
    np.save(folder / "labels.npy", labels)
    return SimpleNamespace(folder=folder, path=path, images=torch.from_numpy(samples), labels=labels)


@pytest.fixture
def run(sampled, tmp_path, capsys):
    """``run(*arguments)``: rows of the table that the command writes, each value as text."""

    def command(*arguments):
        table = tmp_path / "regions.csv"
        with chdir(sampled.folder):
            assert main(["region", "a.posterior.h5", *arguments, "--csv", str(table)]) == 0
        with table.open(newline="") as file:
            return list(csv.DictReader(file))

    return command


def region(sampled, number, mask):
    chain = torch.arange(CHAINS).repeat_interleave(KEEP)
    return Posterior.from_samples(Samples(sampled.images[number][:, None], 0, chain)).region(mask)


def assert_row(row, expected, pixels, level=0.9, prefix=""):
    assert row["pixels"] == str(pixels)
    lower, upper = expected.interval(level)
    values = {prefix or "mean": expected.mean, f"{prefix}_lower": lower, f"{prefix}_upper": upper}
    for name, value in values.items():
        # Six digits.
        assert float(row[name.removeprefix("_")]) == pytest.approx(float(value), rel=1e-5), name


def test_every_label_of_every_slice_has_a_row_and_of_the_volume(sampled, run, capsys):
    rows = run("--mask", "labels.npy")
    assert [(row["slice"], row["label"]) for row in rows] == [
        ("1", "1"), ("2", "1"), ("2", "4"), ("all", "1"), ("all", "4"),
    ]  # fmt: skip
    first, second = (region(sampled, number, sampled.labels[number] == 1) for number in (0, 1))
    fourth = region(sampled, 1, sampled.labels[1] == 4)
    for row, expected, pixels in zip(rows, (first, second, fourth), (12, 12, 6), strict=False):
        assert_row(row, expected, pixels)
        assert float(row["std"]) == pytest.approx(float(expected.std), rel=1e-5)
    # Sample by sample: equally many pixels here.
    values = (first.values + second.values) / 2
    assert float(rows[3]["mean"]) == pytest.approx(float(values.mean()), rel=1e-5)
    assert float(rows[3]["std"]) == pytest.approx(float(values.std()), rel=1e-5)
    assert rows[3]["pixels"] == "24"
    assert_row(rows[4], fourth, 6)
    printed = capsys.readouterr().out
    assert "90 % intervals, of 5 chains" in printed
    assert "Not calibrated" in printed
    assert f"| 2 | 4 | 6 | {float(rows[2]['mean']):.5g} |" in printed


def test_differences_and_ratios_are_to_the_region_of_the_same_slice(sampled, run):
    rows = run("--mask", "labels.npy", "--relative-to", "4", "--level", "0.5")
    second, fourth = (region(sampled, 1, sampled.labels[1] == label) for label in (1, 4))
    assert_row(rows[1], second - fourth, 12, 0.5, "difference")
    assert_row(rows[1], second / fourth, 12, 0.5, "ratio")
    # A slice without it, and the region itself.
    assert {rows[0][f"{name}{end}"] for name in ("difference", "ratio") for end in ("", "_lower", "_upper")} == {""}
    assert [float(rows[2][name]) for name in ("difference", "difference_upper", "ratio", "ratio_lower")] == [0, 0, 1, 1]


def test_a_rectangle_is_taken_of_all_slices_or_of_one(sampled, run):
    rows = run("--rectangle", "6", "2", "3", "5")
    assert [row["slice"] for row in rows] == ["1", "2", "3", "all"]
    mask = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    mask[6:9, 2:7] = True
    assert_row(rows[2], region(sampled, 2, mask), 15)
    (row,) = run("--rectangle", "6", "2", "3", "5", "--slice", "3")
    assert row == rows[2]


def test_what_was_drawn_on_the_nifti_images_has_the_rows_of_the_array(sampled, run, tmp_path):
    (image, _) = write_nifti(read_posterior(sampled.path), tmp_path / "a.nii.gz")
    shown = nibabel.load(image)
    assert shown.shape == (10, 12, SLICES)
    drawn = np.zeros(shown.shape, dtype=np.uint8)
    # Two rows and a column are cut away at either side.
    drawn[...] = sampled.labels[:, 2:-2, 1:-1].T
    nibabel.save(nibabel.Nifti1Image(drawn, shown.affine, shown.header), tmp_path / "mask.nii.gz")
    assert run("--mask", str(tmp_path / "mask.nii.gz")) == run("--mask", "labels.npy")


def test_air_has_a_mean_and_no_ratio(sampled, run, tmp_path):
    labels = np.zeros((ROWS, COLUMNS), dtype=np.uint8)
    labels[6:9, 4:7], labels[0, 0] = 1, 2
    np.save(tmp_path / "air.npy", labels)
    row = run("--mask", str(tmp_path / "air.npy"), "--relative-to", "2", "--slice", "1")[0]
    assert row["difference"] != ""
    assert row["ratio"] == row["ratio_lower"] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--mask none.npy", ["none.npy: no such file"]),
        ("--mask a.posterior.h5", ["a.posterior.h5: no mask", ".nii.gz"]),
        ("--mask labels.npy --slice 3", ["the mask is 0 in slice 3"]),
        ("--mask labels.npy --slice 4", ["--slice is 4", "1 to 3"]),
        ("--mask labels.npy --relative-to 2", ["--relative-to is 2", "1, 4"]),
        ("--mask labels.npy --level 90", ["level is 90.0", "between 0 and 1"]),
        ("--rectangle 0 0 17 1", ["--rectangle is 0 0 17 1", "16 rows and 12 columns"]),
        ("--mask labels.npy --csv labels.npy", ["is read, and would be written to"]),
    ],
)
def test_bad_arguments_get_one_line_and_nothing_is_written(sampled, capsys, arguments, words):
    before = {path.name: path.read_bytes() for path in sampled.folder.iterdir()}
    output = [] if "--csv" in arguments else ["--csv", "out.csv"]
    with chdir(sampled.folder):
        assert main(["region", "a.posterior.h5", *arguments.split(), *output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)
    assert {path.name: path.read_bytes() for path in sampled.folder.iterdir()} == before


def test_a_file_without_samples_says_how_to_get_them(study, run_command):
    result = run_command(["region", str(study.prediction / "a.posterior.h5"), "--rectangle", "0", "0", "2", "2"])
    assert result.code == 2
    (line,) = result.errors
    assert all(words in line for words in ("holds no samples", "save_samples: true", "--save-samples"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.attrs.pop("num_samples"), "no attribute num_samples"),
        (lambda file: file.attrs.modify("num_samples", 3), "10 samples of 3 chains"),
        (lambda file: file.attrs.modify("num_samples", 0), "num_samples is 0"),
        (lambda file: file.attrs.modify("num_samples", 1), "1 chain"),
    ],
)
def test_a_number_of_chains_that_cannot_be_is_one_line(tmp_path, capsys, change, words):
    path = write_sampled(tmp_path / "a.posterior.h5", draw_samples(1, CHAINS, KEEP, ROWS, COLUMNS), chains=CHAINS)
    with h5py.File(path, "r+") as file:
        change(file)
    assert main(["region", str(path), "--rectangle", "0", "0", "2", "2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
