"""On a terminal, what takes long shows a bar with the time left; its words are those of what is done."""

import re
import shutil
import sys

import killed_process
import pytest
import tiny_direct
import yaml
from terminals import as_standard_error

from direct_deepen.cli.main import main


def warm(study, folder):
    """A configuration, and weights beside which a calibration may be written, whose samples spread enough for one."""
    weights = shutil.copy(study.checkpoint, folder)
    changes = {
        "model.inference.noise_std": 0.1,
        "model.inference.prior_weight": 0.01,
        "model.inference.start": "noise",
        "model.inference.num_samples": 16,
    }
    config = tiny_direct.changed(yaml.safe_load(study.configuration.read_text()), changes)
    return str(weights), str(tiny_direct.write_configuration(folder / "warm.yaml", config))


def commands(study, folder):
    """Every command that takes more than two seconds on real data, and what its bars are called."""
    data = ["--cfg", str(study.configuration), "--data-root", study.test.name]
    validation = ["--validation-root", study.validation.name]
    weights, configuration = warm(study, folder)
    posterior = str(study.prediction / "a.posterior.h5")
    return {
        "calibrate": (
            [str(folder / "out"), *data, *validation, "--checkpoint", weights, "--cfg", configuration, "--slices", "1"],
            ["validation", "test", "Langevin"],
        ),
        "benchmark": (
            [str(folder / "out"), "--study", str(study.write(folder / "study.yaml", "zero_filled"))],
            ["runs"],
        ),
        "landscape": (
            [str(study.checkpoint), *data, "--slices", "1", "--html", str(folder / "a.html")],
            ["read", "slices", "landscape"],
        ),
        "posterior": ([posterior, *data, "--html", str(folder / "b.html")], ["read", "page"]),
        "phantom": (
            [str(folder), "--volumes", "1", "--slices", "1", "--size", "32", "--coils", "2", "--seed", "1"],
            ["phantoms"],
        ),
        "doctor": ([], ["MAP", "Langevin"]),
    }


@pytest.mark.parametrize("command", ["calibrate", "benchmark", "landscape", "posterior", "phantom", "doctor"])
def test_a_command_shows_how_far_it_is(study, tmp_path, monkeypatch, command):
    arguments, bars = commands(study, tmp_path)[command]
    monkeypatch.chdir(study.folder)
    killed_process.fork_runs_of_benchmarks(monkeypatch)
    terminal = as_standard_error(monkeypatch)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main([command, *arguments]) == 0
    text = terminal.getvalue()
    for bar in bars:
        # The name, the count, and the time: 00:01<00:02.
        assert re.search(rf"[\r\n]{bar}: .*\d+.*\[\d\d:\d\d", text), bar
