"""``direct-deepen``: what it parses, and that bad input gives exit code 2, one line, and no file."""

import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import tiny_direct

from direct_deepen.cli.main import main

# ---- Parsing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--help"],
            [
                *("phantom", "benchmark", "calibrate", "posterior", "landscape", "report", "doctor"),
                *("direct train", "direct predict"),
            ],
        ),
        (["phantom", "--help"], ["--volumes", "--slices", "--size", "--coils", "--seed", "example"]),
        (["benchmark", "--help"], ["--study", "--jobs", "--device", "--figure-slices", "example of a study:"]),
    ],
)
def test_help_names_commands_and_options(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown


@pytest.mark.parametrize("arguments", [[], ["reconstruct"], ["phantom", "out"], ["benchmark", "out"]])
def test_a_missing_command_or_option_has_exit_code_2_and_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: direct-deepen" in capsys.readouterr().err


def test_the_options_of_phantom_reach_the_writer(tmp_path, monkeypatch, run_command):
    from direct_deepen.data import phantom

    calls = []
    monkeypatch.setattr(phantom, "write_phantoms", lambda output, **options: calls.append((output, options)))
    arguments = [
        "phantom",
        str(tmp_path),
        "--volumes",
        "3",
        "--slices",
        "2",
        "--size",
        "64",
        "--coils",
        "5",
        "--seed",
        "7",
    ]
    assert run_command(arguments).code == 0
    ((output, options),) = calls
    assert output == tmp_path
    expected = {"num_volumes": 3, "num_slices": 2, "size": 64, "num_coils": 5, "seed": 7}
    assert {name: options[name] for name in expected} == expected


# ---- Bad input


def assert_one_line(result, *words):
    assert result.code == 2
    assert len(result.errors) == 1, result.errors
    assert result.errors[0].startswith("direct-deepen: error: ")
    for word in words:
        assert word in result.errors[0]
    assert result.output == ""


@pytest.mark.parametrize(
    ("option", "value"), [("--volumes", "-1"), ("--volumes", "0"), ("--slices", "0"), ("--size", "1"), ("--coils", "0")]
)
def test_phantom_refuses_numbers_out_of_range_before_it_writes(tmp_path, run_command, option, value):
    options = {"--volumes": "1", "--slices": "1", "--size": "32", "--coils": "2", "--seed": "0"} | {option: value}
    words = [word for pair in options.items() for word in pair]
    result = run_command(["phantom", str(tmp_path / "out"), *words])
    assert_one_line(result, value, "allowed")
    assert not list(tmp_path.rglob("*.h5"))


@pytest.fixture
def benchmark(tmp_path, study):
    """``benchmark(**changes)``: the arguments of a benchmark of zero-filled images, with other keys of the study."""

    def arguments(**changes):
        path = study.write(tmp_path / "study.yaml", "zero_filled", **changes)
        return ["benchmark", str(tmp_path / "out"), "--study", str(path)]

    return arguments


def test_benchmark_names_a_missing_configuration(tmp_path, benchmark, run_command):
    result = run_command(benchmark(problems={"2d4x": str(tmp_path / "none.yaml")}))
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
def test_benchmark_names_a_bad_configuration_and_its_key(tmp_path, benchmark, run_command, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert_one_line(run_command(benchmark(problems={"2d4x": str(path)})), str(path), *words)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_kspace(path):
    with h5py.File(path, "r+") as file:
        del file["kspace"]


def text(path):
    path.write_text("no HDF5")


@pytest.mark.parametrize("which", ["test", "validation"])
@pytest.mark.parametrize("damage", [truncated, without_kspace, text])
def test_benchmark_names_a_damaged_volume_among_good_ones(tmp_path, benchmark, run_command, which, damage):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken", "good"])
    damage(data / "broken.h5")
    result = run_command(benchmark(**{which: str(data)}))
    assert_one_line(result, str(data / "broken.h5"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", ["test", "validation"])
def test_benchmark_names_a_folder_that_is_missing_or_holds_no_volume(tmp_path, benchmark, run_command, which):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        result = run_command(benchmark(**{which: str(tmp_path / name)}))
        assert_one_line(result, str(tmp_path / name))
    assert not (tmp_path / "out").exists()


def test_benchmark_refuses_numbers_that_make_no_sense(benchmark, run_command):
    assert_one_line(run_command([*benchmark(), "--figure-slices", "0"]), "--figure-slices", "0", "allowed")
    assert_one_line(run_command([*benchmark(), "--jobs", "0"]), "jobs is 0", "allowed")


def test_an_output_that_cannot_be_written_is_one_line_too(tmp_path, benchmark, run_command):
    (tmp_path / "out").write_text("a file where a folder should be")
    assert_one_line(run_command(benchmark()), str(tmp_path / "out"))


def test_the_installed_command_ends_with_exit_code_2_and_one_line(tmp_path, benchmark):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken"])
    truncated(data / "broken.h5")
    command = [Path(sys.executable).with_name("direct-deepen"), *benchmark(test=str(data))]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"direct-deepen: error: {data / 'broken.h5'}: ")
    assert finished.stdout == ""
