"""The bar of ``direct train``."""

import re
import sys

import tiny_direct
from terminals import as_standard_error


def test_a_terminal_shows_iteration_and_energies_of_training_and_the_log_above_them(tmp_path, volumes, monkeypatch):
    terminal = as_standard_error(monkeypatch)
    monkeypatch.setattr(sys, "stdout", terminal)
    tiny_direct.direct_train(tmp_path, tiny_direct.configuration(iterations=9, warm_start=6), volumes)
    text = terminal.getvalue()
    assert re.search(r"train: .*\| 9/9 \[.*loss=.*, energy=.*, energy of samples=.*, rollbacks=0", text)
    lines = [line for line in re.split("[\r\n]", text) if "Finished training" in line or "Concatenated" in line]
    assert lines
    assert all(line.startswith("[") for line in lines)
    # A run that goes on begins its bar where it was left.
    terminal.truncate(0)
    longer = tiny_direct.configuration(iterations=12, warm_start=6)
    tiny_direct.direct_train(tmp_path, longer, volumes, resume=True)
    assert re.search(r"train: .*\| 10/12 ", terminal.getvalue())
    assert not re.search(r"train: .*\| [1-8]/12 ", terminal.getvalue())
