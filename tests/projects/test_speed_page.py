"""The scripts of the page on speed, at toy sizes."""

import json
import sys
from functools import partial

import killed_process  # noqa: F401  (what processes are copies of)
import pytest
import torch
from torch.multiprocessing import start_processes

from benchmarks.setting import Setting
from direct_deepen import SenseOperator, load_pretrained, mm_map
from direct_deepen.data.cases import Case
from direct_deepen.physics.problem import Problem
from direct_deepen.priors import QuadraticEnergy
from direct_deepen.priors.energy import prior_noise_std
from projects.speed import map_accuracy, map_steps, posterior_steps, scaling, two_processes
from projects.speed.phantoms import NOISE_STD, WEIGHTS


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


def test_the_noise_of_these_weights_is_theirs():
    assert prior_noise_std(load_pretrained(WEIGHTS)) == NOISE_STD


@pytest.fixture
def case(random_operator, draw):
    A = random_operator(1, 3, 16, 16, dtype=torch.complex64)
    reference = draw(1, 16, 16, dtype=torch.complex64)
    problem = Problem(A, A.forward(reference), torch.ones(1), [("a.h5", 0)])
    return Case("a.h5", 0, problem, reference)


def test_a_smaller_accuracy_ends_nearer_to_the_minimum(case):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        energy = QuadraticEnergy(hidden_channels=4, num_layers=2)
    found = map_accuracy.distances(case, energy)
    evaluations, distances = (
        [found[f"{name}_{a:g}"] for a in map_accuracy.ACCURACIES] for name in ("gradients", "distance")
    )
    assert evaluations == sorted(evaluations)
    assert distances == sorted(distances, reverse=True)


def test_what_samples_say_of_a_slice_is_read_off_them(case, draw):
    # Noise of deviation 0.1 in phase with the truth, the same all over a block, and any in quadrature.
    phase = case.reference / case.reference.abs()
    noise = 0.1 * draw(4000, 1, 2, 2, dtype=torch.complex64).real.repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = case.reference + phase * (noise + 1j * draw(4000, 1, 16, 16, seed=1, dtype=torch.complex64).real)
    found = posterior_steps.summary(case, images)
    # Standard errors of 1 %.
    torch.testing.assert_close(found.std, torch.full_like(found.std, 0.1), rtol=0.05, atol=0)
    torch.testing.assert_close(found.block_std, torch.full_like(found.block_std, 0.1), rtol=0.05, atol=0)
    assert found.block_coverage == 1
    shifted = posterior_steps.summary(case, images + 0.3 * phase)
    assert shifted.block_coverage == 0
