"""Progress bars: on a terminal and nowhere else, with figures, and without making a device wait for them."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from terminals import as_standard_error
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from direct_deepen import langevin, mm_map
from direct_deepen.evaluation.landscape import landscape
from direct_deepen.inference import (
    annealed_langevin,
    diffusion_posterior_sampling,
    equilibrium,
    preconditioned_annealed_langevin,
    proximal_iteration,
    unrolled_gradient,
)
from direct_deepen.progress import METRICS_INTERVAL, progress_bar, show_metrics

# ---- Bars


def test_a_bar_shows_name_count_and_time_left_and_is_gone_in_the_end(monkeypatch):
    terminal = as_standard_error(monkeypatch)
    bar = progress_bar(name="MAP", unit="step", total=4)
    bar.update(1)
    bar.refresh()
    shown = terminal.getvalue().rpartition("\r")[2]
    assert "MAP" in shown
    assert "1/4 [" in shown
    assert "step" in shown
    assert "<" in shown  # time spent < time left
    bar.close()
    *_, cleared, after = terminal.getvalue().split("\r")
    assert cleared.strip() == after == ""


@pytest.mark.parametrize("shown", [True, False])
def test_without_a_terminal_or_where_it_is_not_asked_for_nothing_is_written(monkeypatch, shown):
    output = as_standard_error(monkeypatch)
    if shown:
        monkeypatch.setattr(output, "isatty", lambda: False)
    bar = progress_bar(range(3), name="MAP", unit="step", shown=shown)
    assert list(bar) == [0, 1, 2]
    # A tensor on no device cannot be read: no figure is.
    show_metrics(bar, cost=torch.zeros(3, device="meta"))
    assert output.getvalue() == ""


def test_figures_are_means_with_four_digits(monkeypatch):
    terminal = as_standard_error(monkeypatch)
    with progress_bar(name="MAP", unit="step", total=4) as bar:
        show_metrics(bar, cost=torch.tensor([1.0, 2.0]), noise_level=0.123456, left=torch.tensor(3))
        assert "cost=1.5, noise_level=0.1235, left=3" in terminal.getvalue()


# ---- Solvers and samplers


class Bowl:
    """E(x) = ½h‖x‖²."""

    def __init__(self, curvature=0.3):
        self.curvature = curvature

    def __call__(self, image):
        return 0.5 * self.curvature * image.abs().square().sum(dim=(1, 2))

    def value_and_grad(self, image):
        return self(image), self.curvature * image


@dataclass(frozen=True)
class Solver:
    """A solver, what its bar says, and how many steps it takes, of all groups together."""

    run: Callable[..., Any]
    name: str
    figures: tuple[str, ...]
    steps: int


def generator():
    return torch.Generator().manual_seed(0)


LEVELS = [float(level) for level in torch.linspace(1.0, 0.1, 25)]
ANNEALING = {"noise_std": 0.1, "noise_levels": [1.0, 0.7, 0.4, 0.2, 0.1]}
SAMPLING = {"num_samples": 3, "max_images": 2}
SOLVERS = [
    Solver(
        lambda A, b, **p: mm_map(A, b, Bowl(), tolerance=1e-30, max_iterations=6, **p).image,
        "MAP", ("cost", "step", "left"), 6,
    ),
    Solver(
        lambda A, b, **p: proximal_iteration(
            A, b, lambda x: 0.99 * x, step_size=1.0, tolerance=1e-9, max_iterations=50, **p
        ).image,
        "PnP-ISTA", ("change",), 50,
    ),
    Solver(
        lambda A, b, **p: equilibrium(
            A, b, lambda x: 0.5 * x, data_weight=1.0, damping=0.05, tolerance=1e-9, max_iterations=50, **p
        ).image,
        "equilibrium", ("change",), 50,
    ),
    Solver(
        torch.no_grad()(lambda A, b, **p: unrolled_gradient(A, b, Bowl(), step_size=0.5, **p)),
        "gradient steps", (), 30,
    ),
    Solver(
        lambda A, b, **p: langevin(A, b, Bowl(), noise_std=0.1, generator=generator(), **SAMPLING, **p).images,
        "Langevin", ("cost", "step"), 300,
    ),
    Solver(
        lambda A, b, **p: diffusion_posterior_sampling(
            A, b, lambda x, level: x / (1 + level**2), noise_levels=LEVELS, generator=generator(), **SAMPLING, **p
        ).images,
        "DPS", ("noise_level", "residual"), 75,
    ),
    Solver(
        lambda A, b, **p: annealed_langevin(
            A, b, lambda level: Bowl(), generator=generator(), **ANNEALING, **SAMPLING, **p
        ).images,
        "annealing", ("noise_level", "energy"), 75,
    ),
    Solver(
        lambda A, b, **p: annealed_langevin(
            A, b, lambda level: Bowl(), generator=None, **ANNEALING, **p
        ).images[0],
        "annealing", ("noise_level", "energy"), 25,
    ),
    Solver(
        lambda A, b, **p: preconditioned_annealed_langevin(
            A, b, lambda level: Bowl(), generator=generator(), **ANNEALING, **SAMPLING, **p
        ).images,
        "annealing", ("noise_level", "cost"), 5,
    ),
    Solver(
        lambda A, b, **p: landscape(A, b, Bowl(), A.adjoint(b), generator=generator(), **p).cost,
        "landscape", (), 41,
    ),
]  # fmt: skip


class Readings(TorchDispatchMode):
    """Counts how often a number is read off a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.fixture
def problem(random_operator, draw):
    A = random_operator(batch=1)
    return SimpleNamespace(A=A, b=A.forward(draw(1, 8, 8, seed=1)))


@pytest.mark.parametrize("solver", SOLVERS, ids=[f"{number}-{solver.name}" for number, solver in enumerate(SOLVERS)])
def test_every_solver_shows_how_far_it_is_and_never_waits_for_that(solver, problem, monkeypatch):
    terminal = as_standard_error(monkeypatch)
    counts, close = [], tqdm.close
    monkeypatch.setattr(tqdm, "close", lambda bar: (counts.append(bar.n), close(bar)))
    with Readings() as hidden:
        expected = solver.run(problem.A, problem.b)
    assert terminal.getvalue() == ""
    counts.clear()
    with Readings() as shown:
        found = solver.run(problem.A, problem.b, progress=True)
    assert solver.steps in counts
    assert torch.equal(found, expected)
    text = terminal.getvalue()
    assert f"/{solver.steps} [" in text
    for word in (solver.name, *(f"{figure}=" for figure in solver.figures)):
        assert word in text
    assert text.rpartition("\r")[2] == ""
    # A reading for every figure; levels of the last rule are long, and none goes without.
    levels = solver.name == "annealing" and "cost" in solver.figures
    rounds = solver.steps if levels else solver.steps // METRICS_INTERVAL + 2
    assert shown.count - hidden.count <= rounds * len(solver.figures)
    # Where there is no terminal nothing is read.
    pipe = as_standard_error(monkeypatch)
    monkeypatch.setattr(pipe, "isatty", lambda: False)
    with Readings() as piped:
        solver.run(problem.A, problem.b, progress=True)
    assert piped.count == hidden.count
    assert pipe.getvalue() == ""
