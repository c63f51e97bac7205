"""``direct-deepen``: what it parses, and that bad input gives exit code 2, one line, and no file."""

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_direct
import torch

from direct_deepen.cli.main import main

# ---- Parsing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--help"],
            [
                *("phantom", "score", "benchmark", "calibrate", "posterior", "landscape", "report", "doctor"),
                *("direct train", "direct predict"),
            ],
        ),
        (["phantom", "--help"], ["--volumes", "--slices", "--size", "--coils", "--seed", "example"]),
        (["score", "--help"], ["--cfg", "--data-root", "--validation-root", "--prediction", "example:"]),
    ],
)
def test_help_names_commands_and_options(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown


@pytest.mark.parametrize("arguments", [[], ["reconstruct"], ["phantom", "out"], ["score", "out"], ["benchmark", "out"]])
def test_a_missing_command_or_option_has_exit_code_2_and_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: direct-deepen" in capsys.readouterr().err


# ---- Bad input


def assert_one_line(result, *words):
    assert result.code == 2
    assert len(result.errors) == 1, result.errors
    assert result.errors[0].startswith("direct-deepen: error: ")
    for word in words:
        assert word in result.errors[0]
    assert result.output == ""


def test_phantom_refuses_numbers_out_of_range_before_it_writes(tmp_path, run_command):
    result = run_command(["phantom", str(tmp_path / "out"), *["--volumes", "1", "--slices", "0", "--seed", "0"]])
    assert_one_line(result, "num_slices", "0", "allowed")
    assert list(tmp_path.iterdir()) == []


def test_score_names_a_missing_configuration(tmp_path, study, run_command):
    result = run_command(study.arguments(tmp_path / "out", cfg=tmp_path / "none.yaml"))
    assert_one_line(result, str(tmp_path / "none.yaml"), "no such configuration")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inference: [", []),
        ("- a list", []),
        ("model: {}", ["inference"]),
        ("inference: {dataset: {transforms: {}}}", ["name"]),
        ("inference: {dataset: {name: FastMRY, transforms: {}}}", ["FastMRY"]),
        ("inference: {dataset: {name: FastMRI, transforms: {maskng: {}}}}", ["maskng"]),
        ("inference: {dataset: {name: FastMRI, transforms: {masking: null}}}", []),
        ("inference: {dataset: {name: FastMRI, transforms: {masking: {name: Gausian2D}}}}", ["Gausian2D"]),
    ],
)
def test_score_names_a_bad_configuration_and_its_key(tmp_path, study, run_command, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert_one_line(run_command(study.arguments(tmp_path / "out", cfg=path)), str(path), *words)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_kspace(path):
    with h5py.File(path, "r+") as file:
        del file["kspace"]


def text(path):
    path.write_text("no HDF5")


@pytest.mark.parametrize("which", ["data_root", "validation_root"])
@pytest.mark.parametrize("damage", [truncated, without_kspace, text])
def test_score_names_a_damaged_volume_among_good_ones(tmp_path, study, run_command, which, damage):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken", "good"])
    damage(data / "broken.h5")
    result = run_command(study.arguments(tmp_path / "out", **{which: data}))
    assert_one_line(result, str(data / "broken.h5"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", ["data_root", "validation_root"])
def test_score_names_a_folder_that_is_missing_or_holds_no_volume(tmp_path, study, run_command, which):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        result = run_command(study.arguments(tmp_path / "out", **{which: tmp_path / name}))
        assert_one_line(result, str(tmp_path / name))
    assert not (tmp_path / "out").exists()


def no_folder(copied):
    shutil.rmtree(copied)
    return [str(copied), "direct predict"]


def no_volume(copied):
    (copied / "b.h5").unlink()
    return [str(copied / "b.h5")]


def damaged_volume(copied):
    truncated(copied / "b.h5")
    return [str(copied / "b.h5")]


def damaged_posterior(copied):
    truncated(copied / "b.posterior.h5")
    return [str(copied / "b.posterior.h5")]


def no_reconstruction(copied):
    with h5py.File(copied / "b.h5", "r+") as file:
        del file["reconstruction"]
    return [str(copied / "b.h5"), "reconstruction"]


def fewer_slices(copied):
    with h5py.File(copied / "b.h5", "r+") as file:
        images = file["reconstruction"][:1]
        del file["reconstruction"]
        file["reconstruction"] = images
    return [str(copied / "b.h5"), "(1, 32, 32)", "2 or more"]


def other_size(copied):
    with h5py.File(copied / "b.h5", "r+") as file:
        images = file["reconstruction"][:, 2:]
        del file["reconstruction"]
        file["reconstruction"] = images
    return [str(copied / "b.h5"), "(2, 30, 32)"]


def other_mask(copied):
    with h5py.File(copied / "b.h5", "r+") as file:
        file["sampling_mask"][...] = np.roll(file["sampling_mask"], 1, axis=-1)
    return [str(copied / "b.h5"), "sampling mask"]


def other_mask_without_posterior(copied):
    (copied / "b.posterior.h5").unlink()
    return other_mask(copied)


@pytest.mark.parametrize(
    "damage",
    [
        no_folder,
        no_volume,
        damaged_volume,
        damaged_posterior,
        no_reconstruction,
        fewer_slices,
        other_size,
        other_mask,
        other_mask_without_posterior,
    ],
)
def test_score_names_a_prediction_that_does_not_belong_to_the_data(tmp_path, study, copied, run_command, damage):
    words = damage(copied)
    result = run_command(study.arguments(tmp_path / "out", prediction=("deepen", copied, study.checkpoint)))
    assert_one_line(result, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"no checkpoint"])
def test_score_names_a_missing_or_damaged_checkpoint(tmp_path, study, run_command, content):
    path = tmp_path / "model_1.pt"
    if content is not None:
        path.write_bytes(content)
    result = run_command(study.arguments(tmp_path / "out", prediction=("deepen", study.prediction, path)))
    assert_one_line(result, str(path), "checkpoint")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_something_else_is_named(tmp_path, study, run_command):
    torch.save({"optimizer": {}}, tmp_path / "model_1.pt")
    arguments = study.arguments(tmp_path / "out", prediction=("deepen", study.prediction, tmp_path / "model_1.pt"))
    assert_one_line(run_command(arguments), str(tmp_path / "model_1.pt"), "no checkpoint of DIRECT")


def test_score_refuses_numbers_and_names_that_make_no_sense(tmp_path, study, run_command):
    result = run_command(study.arguments(tmp_path / "out", figure_slices="0"))
    assert_one_line(result, "--figure-slices", "0", "allowed")
    twice = study.arguments(tmp_path / "out")
    result = run_command([*twice, "--prediction", "deepen", str(study.prediction), str(study.checkpoint)])
    assert_one_line(result, "--prediction", "deepen")


def test_an_output_that_cannot_be_written_is_one_line_too(tmp_path, study, run_command):
    (tmp_path / "out").write_text("a file where a folder should be")
    assert_one_line(run_command(study.arguments(tmp_path / "out")), str(tmp_path / "out"))


def test_the_installed_command_ends_with_exit_code_2_and_one_line(tmp_path, study):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken"])
    truncated(data / "broken.h5")
    command = [Path(sys.executable).with_name("direct-deepen"), *study.arguments(tmp_path / "out", data_root=data)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"direct-deepen: error: {data / 'broken.h5'}: ")
    assert finished.stdout == ""
