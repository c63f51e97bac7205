"""Commands where the system is not Linux: what only Linux has is missing, and they run."""

import os
import sys
from pathlib import Path

import pytest
import tiny_direct
import torch

from direct_deepen import machine
from direct_deepen.cli.main import main
from direct_deepen.engines.commands import all_cores
from direct_deepen.priors.cpu import allocator


@pytest.fixture
def without_linux(monkeypatch):
    """What macOS lacks of Python's ``os``, and its C library in place of glibc."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(machine, "_share", [])
    load = allocator.ctypes.CDLL
    # The name of glibc; others are those of Python packages.
    monkeypatch.setattr(
        allocator.ctypes, "CDLL", lambda name, *rest: load(name and name.replace("libc.so.6", "no"), *rest)
    )


def test_a_training_and_a_prediction_run(tmp_path, without_linux, volume, training_config, map_config):
    short = tiny_direct.changed(training_config, {"training.num_iterations": 7})
    run = tiny_direct.direct_train(tmp_path / "run", short, volume)
    tiny_direct.direct_predict(tmp_path / "out", map_config, volume, run / "model_6.pt")
    assert (tmp_path / "out" / "test.h5").is_file()


def test_the_installation_is_in_order(without_linux, capsys):
    assert main(["doctor"]) == 0
    assert "on 3 cores" in capsys.readouterr().out


def test_all_cores_are_used_and_a_share_of_them_is_kept(without_linux):
    before = torch.get_num_threads()
    with all_cores("cpu"):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    machine.use_cores([2, 1])
    assert machine.available_cores() == [1, 2]


@pytest.mark.parametrize(("system", "factor"), [("linux", 2**10), ("darwin", 1)])
def test_peak_memory_is_in_the_unit_of_the_system(monkeypatch, system, factor):
    """getrusage(2) counts kilobytes on Linux, bytes on macOS."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(
        machine.resource, "getrusage", lambda who: type("Usage", (), {"ru_maxrss": 300 * 2**20 // factor})
    )
    assert machine.peak_memory_mb() == 300


def test_nothing_but_one_module_asks_for_what_only_linux_has():
    package = Path(machine.__file__).parent
    for name in ("sched_getaffinity", "sched_setaffinity", "ru_maxrss", "/proc/"):
        users = {path.name for path in package.rglob("*.py") if name in path.read_text()}
        assert users <= {"machine.py"}, name
