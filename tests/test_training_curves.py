"""Curves of a training: what DIRECT logs, without what it repeats, and what a killed run leaves."""

import json

import pytest

from direct_deepen.pages.training_curves import plot_curves, read_curves, shown_curves

PSNR = "val/brains/fastmri_psnr_metric"


def write_log(folder, rows, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
    return folder


ROWS = [
    {"iteration": 0},
    {"iteration": 20, "loss": 3.0, "lr": 0.1, PSNR: 20.0},
    # DIRECT repeats what is not new.
    {"iteration": 40, "loss": 3.0, "lr": 0.1, PSNR: 20.0},
    {"iteration": 60, "loss": 1.0, "lr": 0.1, PSNR: 25.0, "train/energy_gap": -0.5},
]


def test_validation_has_the_points_that_are_new_and_everything_else_has_all(tmp_path):
    curves = read_curves(write_log(tmp_path, ROWS))
    assert curves["loss"] == {20: 3.0, 40: 3.0, 60: 1.0}
    assert curves[PSNR] == {20: 20.0, 60: 25.0}
    assert curves["train/energy_gap"] == {60: -0.5}
    assert "iteration" not in curves


def test_a_resumed_training_goes_on_where_it_was_and_half_a_line_is_left_out(tmp_path):
    resumed = [*ROWS, {"iteration": 40, "loss": 2.5}, {"iteration": 80, "loss": 0.5}]
    curves = read_curves(write_log(tmp_path, resumed, end='{"iteration": 100, "lo'))
    # What was done twice counts as it was done last.
    assert curves["loss"] == {20: 3, 40: 2.5, 60: 1, 80: 0.5}
    assert list(curves["loss"]) == [20, 40, 60, 80]


def test_a_log_of_something_else_is_refused(tmp_path, one_line_error):
    write_log(tmp_path, [{"step": 1}])
    with one_line_error("metrics.json", "line 1"):
        read_curves(tmp_path)


def test_figures_put_runs_side_by_side_in_a_fixed_order_and_name_the_validation_set(tmp_path):
    curves = read_curves(write_log(tmp_path, ROWS))
    other = {"loss": curves["loss"], "of_nobody": curves["loss"]}
    shown = dict(shown_curves({"first": curves, "second": other}))
    assert list(shown) == ["loss", "PSNR (volume maximum) on brains (dB)", "energy gap E⁺ − E⁻", "learning rate"]
    assert list(shown["loss"]) == ["first", "second"]
    assert list(shown["learning rate"]) == ["first"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_figure_is_a_picture(count):
    runs = {f"run {number}": {0: 1.0, 10: float(number)} for number in range(count)}
    assert plot_curves(runs).startswith(b"\x89PNG")
