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
                "phantom",
                "simulate",
                "benchmark",
                "calibrate",
                "posterior",
                "region",
                "landscape",
                "report",
                "doctor",
                "direct train",
            ],
        ),
        (["phantom", "--help"], ["--volumes", "--slices", "--size", "--coils", "--seed", "example"]),
        (["landscape", "--help"], ["--cfg", "--data-root", "--slices", "example:"]),
    ],
)
def test_help_names_commands_and_options(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown


@pytest.mark.parametrize("arguments", [[], ["reconstruct"], ["phantom", "out"], ["landscape"], ["benchmark", "out"]])
def test_a_missing_command_or_option_has_exit_code_2_and_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: direct-deepen" in capsys.readouterr().err


# ---- Ctrl-C


def test_an_interrupted_command_has_exit_code_130_and_one_line(tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("direct_deepen.cli.phantom.run", interrupt)
    assert main(["phantom", str(tmp_path), "--volumes", "1", "--slices", "1", "--seed", "0"]) == 130
    assert capsys.readouterr().err == "direct-deepen: interrupted\n"


# ---- What is read is not written to


@pytest.fixture
def inputs(tmp_path):
    """A folder of data and one of a run, with files that commands read."""
    data = tiny_direct.write_volumes(tmp_path / "data", ["a"])
    (tmp_path / "link").symlink_to(data)
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.csv").write_text("method,psnr\na,1\n")
    (run / "table.md").write_text("table")
    (run / "drawing.png").write_bytes(b"png")
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "phantom_000_000.h5").write_bytes((data / "a.h5").read_bytes())
    problem = {"test": str(data), "validation": str(tmp_path / "run"), "reference": "s", "seed": 0}
    problem |= {"problems": {"p": str(tmp_path / "a.yaml")}, "methods": {"s": {"classical": "sense"}}}
    tiny_direct.write_configuration(tmp_path / "study.yaml", problem)
    return tmp_path


OVER_INPUTS = {
    "posterior, page": "posterior data/a.h5 --html data/a.h5",
    "posterior, picture over data": "posterior x.posterior.h5 --cfg a.yaml --data-root data --out link/a.h5",
    "posterior, one file twice": "posterior data/a.h5 --out x --html ./x",
    "calibrate": "calibrate link --cfg a.yaml --data-root data --validation-root run",
    "calibrate, validation": "calibrate data/../run --cfg a.yaml --data-root data --validation-root run",
    "calibrate, samples": "calibrate out --cfg a.yaml --data-root out/samples/test --validation-root run",
    "benchmark": "benchmark link --study study.yaml",
    "configure": "configure a.yaml ./a.yaml b=2",
    "configure, overlay": "configure study.yaml a.yaml --with a.yaml",
    "landscape, weights": "landscape model.pt --cfg a.yaml --data-root data --out model.pt",
    "landscape, data": "landscape model.pt --cfg a.yaml --data-root data --html data/a.h5",
    "report, page": "report run --out run/table.md",
    "report, curves": "report run --out x.html --csv run/curves.csv",
    "report, drawing": "report run --out run/drawing.png",
    "phantom": "phantom . --volumes 1 --slices 1 --size 32 --coils 2 --seed 0",
}


@pytest.mark.parametrize("command", OVER_INPUTS)
def test_no_command_writes_over_what_it_reads(inputs, monkeypatch, capsys, command):
    monkeypatch.chdir(inputs)
    (inputs / "out" / "samples").mkdir(parents=True)
    (inputs / "out" / "samples" / "test").symlink_to(inputs / "data")
    before = {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}
    assert main(OVER_INPUTS[command].split()) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert any(
        words in line for words in ("is read, and would be written to", "is given twice", "would be overwritten")
    )
    assert {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()} == before


# ---- Bad input


def assert_one_line(result, *words):
    assert result.code == 2
    assert len(result.errors) == 1, result.errors
    assert result.errors[0].startswith("direct-deepen: error: ")
    for word in words:
        assert word in result.errors[0]
    assert result.output == ""


def landscape(study, *, cfg=None, data=None):
    """A command that reads a configuration and fully sampled data, as others do."""
    return ["landscape", "pretrained", "--cfg", str(cfg or study.configuration), "--data-root", str(data or study.test)]


def test_phantom_refuses_numbers_out_of_range_before_it_writes(tmp_path, run_command):
    result = run_command(["phantom", str(tmp_path / "out"), "--volumes", "1", "--slices", "0", "--seed", "0"])
    assert_one_line(result, "num_slices", "0", "allowed")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_line_too(tmp_path, study, run_command):
    (tmp_path / "out").write_text("a file where a folder should be")
    run = str(study.checkpoint.parent)
    assert_one_line(run_command(["report", run, "--out", str(tmp_path / "out" / "a.html")]), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["no such file"]),
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
def test_a_missing_or_bad_configuration_is_named_and_its_key(tmp_path, study, run_command, text, words):
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    assert_one_line(run_command(landscape(study, cfg=path)), str(path), *words)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_kspace(path):
    with h5py.File(path, "r+") as file:
        del file["kspace"]


def text(path):
    path.write_text("no HDF5")


@pytest.mark.parametrize("damage", [truncated, without_kspace, text])
def test_a_damaged_volume_among_good_ones_is_named(tmp_path, study, run_command, damage):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken", "good"])
    damage(data / "broken.h5")
    assert_one_line(run_command(landscape(study, data=data)), str(data / "broken.h5"))


@pytest.mark.parametrize("name", ["empty", "none"])
def test_a_folder_that_is_missing_or_holds_no_volume_is_named(tmp_path, study, run_command, name):
    (tmp_path / "empty").mkdir()
    assert_one_line(run_command(landscape(study, data=tmp_path / name)), str(tmp_path / name))


def test_the_installed_command_ends_with_exit_code_2_and_one_line(tmp_path, study):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken"])
    truncated(data / "broken.h5")
    command = [Path(sys.executable).with_name("direct-deepen"), *landscape(study, data=data)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"direct-deepen: error: {data / 'broken.h5'}: ")
    assert finished.stdout == ""
