"""The scripts of the page on speed, at toy sizes."""

import json
import sys
from functools import partial

import killed_process  # noqa: F401  (what processes are copies of)
import torch
from torch.multiprocessing import start_processes

from benchmarks.setting import Setting
from direct_deepen import SenseOperator, mm_map
from direct_deepen.priors import QuadraticEnergy
from projects.speed import map_steps, scaling, two_processes


def test_scaling_measures_every_value_of_every_axis_and_draws_it(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "AXES", {"size": (8, 12), "steps": (1, 2), "coils": (1, 3), "batch": (1, 2)})
    rows = scaling.measure(Setting(size=8, channels=2, coils=2, repetitions=1))
    scaling.plot(rows, tmp_path / "scaling.png")
    expected = [(axis, value) for axis, values in scaling.AXES.items() for value in values]
    assert [(row["axis"], row["value"]) for row in rows] == expected
    assert all(row["seconds"] > 0 and row["floor_seconds"] > 0 for row in rows)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_two_processes_end_with_the_weights_of_one(tmp_path, monkeypatch):
    output = tmp_path / "two_processes.json"
    toy = ["--size", "16", "--channels", "4", "--steps", "3", "--updates", "3"]
    monkeypatch.setattr(sys, "argv", ["two_processes", *toy, "--output", str(output)])
    # Copies of a process that has imported torch are there at once.
    monkeypatch.setattr(torch.multiprocessing, "spawn", partial(start_processes, start_method="forkserver"))
    before = torch.get_num_threads()
    try:
        two_processes.main()
    finally:
        torch.set_num_threads(before)
    figures = json.loads(output.read_text())
    # A sum for the mean, or weights that are not sent, would differ by as much as they change. What is left is the
    # rounding of differences of energies, in single precision.
    change = figures["largest_relative_change_of_weights"]
    assert change > 1e-4
    assert figures["largest_relative_difference_of_weights"] < 0.02 * change
    assert len(figures["images_a_second"]) == 3


def test_what_map_takes_is_counted_where_it_is_done(random_operator, draw):
    A = random_operator(1, dtype=torch.complex64)
    assert isinstance(A, SenseOperator)
    b, energy = A.forward(draw(1, 8, 8, dtype=torch.complex64)), QuadraticEnergy(hidden_channels=4, num_layers=2)
    operator, recorded = map_steps.CountedOperator(A), map_steps.RecordedEnergy(energy)
    result = mm_map(operator, b, recorded, init=torch.zeros(1, 8, 8, dtype=torch.complex64))
    assert len(recorded.images) == result.gradient_evaluations
    # A residual and its adjoint at the start and at every step, and Aᴴb once to know what gradient is zero; what is
    # more are conjugate gradients, one application at least a step.
    least = 1 + result.iterations + 0.5
    assert operator.count >= least + result.iterations
    assert (operator.count - least) % 1 == 0
