"""``python -m benchmarks.speed`` from end to end, at sizes too small for its ratios to mean anything."""

import json
import math
import os

import pytest
import tiny_direct
import torch

from benchmarks.speed import BOUNDS, Measurements, main, table

BELOW = {"bounds", "setting", "seconds", "memory_mb", "notes", "machine", "versions"}
UNBOUNDED = {"gradient_bfloat16_over_floor", "langevin_step_over_deepinv_ula_own_layers"}


@pytest.fixture
def measured(tmp_path, monkeypatch, capsys):
    """What a measurement of some parts writes and prints."""

    def measure(*parts):
        path = tmp_path / "new folder" / "speed.json"
        threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
        # As everywhere in the tests: threads for images as small as these only wait for one another.
        os.sched_setaffinity(0, {min(cores)})
        monkeypatch.chdir(tiny_direct.REPOSITORY)
        # At 32 the masks of the configurations have too small a centre for coil maps.
        sizes = ["--size", "40", "--channels", "4", "--coils", "2", "--repetitions", "1"]
        try:
            main(["--json", str(path), "--parts", *parts, *sizes])
        finally:
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(threads)
        return json.loads(path.read_text()), capsys.readouterr().out

    return measure


def test_ratios_are_written_and_printed_with_what_they_are_made_of(measured):
    written, printed = measured("steps", "direct")
    ratios = written.keys() - BELOW
    assert written.keys() >= BELOW
    assert all(written[name] > 0 and f"| `{name}` |" in printed for name in ratios)
    ((gradient,), (floor,)) = (written["seconds"][name] for name in ("gradient", "floor"))
    assert written["gradient_over_floor"] == gradient / floor
    assert {name for name in BOUNDS if "memory" not in name and "deepinv" not in name} <= ratios
    assert written["setting"] | {"size": 40, "channels": 4} == written["setting"]


@pytest.mark.slow
def test_every_ratio_that_has_a_bound_is_measured(measured):
    ratios = measured("steps", "memory", "direct")[0].keys() - BELOW
    # deepinv comes with another extra than the tests.
    assert BOUNDS.keys() - {"langevin_step_over_deepinv_ula"} <= ratios <= BOUNDS.keys() | UNBOUNDED


def test_sizes_below_one_are_refused(one_line_error):
    with one_line_error("size", "0"):
        main(["--json", "none.json", "--size", "0"])


def test_the_table_says_what_holds_and_by_how_much_the_rest_is_missed():
    text = table(Measurements({"gradient_over_floor": 1.05, "memory_over_varnet": 0.3, "update_over_steps": math.nan}))
    assert "| `gradient_over_floor` | 1.05 | ≤ 1.1 | holds |" in text
    assert "missed by 100 %" in text
    assert text.count("holds") == 1
