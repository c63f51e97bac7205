"""What ``direct-deepen speed`` measures is what it says, at sizes too small for the figures to mean anything."""

import itertools
import json
import math
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional

from direct_deepen.cli.main import main
from direct_deepen.priors.networks import ACTIVATIONS
from direct_deepen.speed import figures as figures_module
from direct_deepen.speed import memory, steps
from direct_deepen.speed.figures import BOUNDS, Figures, measure_steps, table
from direct_deepen.speed.setting import Setting, workload
from direct_deepen.speed.turns import medians, times_in_turns
from direct_deepen.speed.updates import severed_update, unrolled_update

TINY = Setting(size=16, channels=4, coils=2, repetitions=1)


@pytest.fixture
def work():
    return workload(TINY)


def silent(items, **_):
    return items


# ---- Turns


def test_contenders_warm_up_and_then_take_turns():
    order = []
    contenders = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = times_in_turns(contenders, 3, track=silent)
    assert order == list("abababab")
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_a_turn_ends_when_the_gpu_has_finished():
    order = []
    with (
        patch("torch.cuda.is_initialized", lambda: True),
        patch("torch.cuda.synchronize", lambda: order.append("waited")),
        patch("time.perf_counter", lambda: order.append("clock") or 0.0),
    ):
        times_in_turns({"a": lambda: order.append("a")}, 1, track=silent)
    assert order == ["a", "waited", "clock", "a", "waited", "clock"]


def test_figures_are_medians():
    assert medians({"a": [3.0, 1.0, 50.0]}) == {"a": 3.0}


# ---- What is measured


def test_the_workload_is_the_same_every_time_and_draws_from_no_global_generator(global_generators_untouched, work):
    again = workload(TINY)
    assert torch.equal(work.masked_kspace, again.masked_kspace)
    assert all(torch.equal(a, b) for a, b in zip(work.energy.parameters(), again.energy.parameters(), strict=True))


def test_the_floor_is_every_convolution_there_and_back(work):
    shapes = []

    def recorded(x, weight, *arguments, **keywords):
        shapes.append((tuple(x.shape), tuple(weight.shape)))
        return convolution(x, weight, *arguments, **keywords)

    convolution = functional.conv2d
    convolve = steps.floor(work)
    with patch.object(functional, "conv2d", recorded):
        convolve()
    widths = [2, 4, 4, 4, 4, 2]
    there = [((1, a, 16, 16), (b, a, 3, 3)) for a, b in itertools.pairwise(widths)]
    back = [((1, b, 16, 16), (a, b, 3, 3)) for a, b in itertools.pairwise(widths)]
    assert shapes == there + back[::-1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_plain_energy_is_the_same_function(activation):
    work = workload(Setting(size=8, channels=4, coils=1, activation=activation))
    channels = torch.stack([work.image.real, work.image.imag], dim=1)
    plain = steps.plain_energy(work)
    # Single precision, sums of some hundred terms.
    torch.testing.assert_close(plain(channels), work.energy(work.image), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(steps.own_energy(work)(channels), work.energy(work.image), rtol=1e-5, atol=1e-6)
    with patch.object(functional, "elu", wraps=functional.elu) as used:
        plain(channels)
    assert used.call_count == (4 if activation == "elu" else 0)


def test_the_chain_has_its_steps(work):
    samples = steps.chain(work, 3)()
    assert samples.cost_trace.shape[0] == 3
    assert samples.gradient_evaluations == 4


def test_an_update_changes_all_weights(work):
    before = [weight.detach().clone() for weight in work.energy.parameters()]
    severed_update(work, 2)()
    assert not any(torch.equal(a, b) for a, b in zip(before, work.energy.parameters(), strict=True))


def test_the_unrolled_update_takes_the_steps_of_the_sampler(work):
    # Both draw the same noise from generators of the same seed, so that the samples have the same energy.
    energies = []

    def loss(true_energy, sample_energy):
        energies.append(sample_energy.detach())
        return (true_energy - sample_energy).mean()

    with patch("direct_deepen.speed.updates.contrastive_loss", loss):
        severed_update(work, 3)()
        unrolled_update(workload(TINY), 3)()
    torch.testing.assert_close(energies[0], energies[1], rtol=1e-4, atol=0)  # single precision, four steps


def test_an_unknown_kind_of_memory_is_refused(one_line_error):
    with one_line_error("kind", "'best'", "unrolled"):
        memory.peak_memory_mb("best", TINY)


def test_memory_is_what_a_fresh_process_grew_by():
    # 2²⁴ single-precision numbers in two channels, of which a pass keeps the image, four hidden layers and the output.
    setting = Setting(size=1024, channels=4, coils=1)
    activations = 1024**2 * 4 * (2 + 4 * 4 + 2) / 2**20
    grown = memory.peak_memory_mb("sampling", setting, num_steps=1)
    assert activations <= grown <= 4 * activations


def test_figures_of_memory_are_medians_of_the_processes_they_name(monkeypatch):
    asked, peaks = [], iter(range(1, 100))

    def peak(kind, setting, *, configuration=None, num_steps=30):
        asked.append((kind, setting.size, configuration and configuration.name, num_steps))
        return float(next(peaks))

    monkeypatch.setattr(figures_module, "peak_memory_mb", peak)
    figures = Figures()
    paths = Path("deepen.yaml"), Path("varnet.yaml")
    figures_module.measure_memory(figures, Setting(size=256), *paths, track=silent)
    training = [("training", 256, "deepen.yaml", steps) for steps in (10, 200) for _ in range(3)]
    others = [("baseline", 256, "varnet.yaml", 30), ("severed", 128, None, 30), ("unrolled", 128, None, 30),
              ("map", 256, None, 5), ("sampling", 256, None, 5)]  # fmt: skip
    assert asked == training + others
    assert figures.ratios == {
        "memory_200_over_10_steps": 5 / 2,
        "memory_severed_over_unrolled": 8 / 9,
        "memory_over_varnet": 5 / 7,
        "map_memory_mb": 10,
        "sampling_memory_mb": 11,
    }


# ---- The command


def test_the_command_writes_all_figures_of_a_part(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(steps, "has_deepinv", lambda: False)
    path = tmp_path / "new folder" / "speed.json"
    arguments = ["--size", "16", "--channels", "4", "--coils", "2", "--repetitions", "2", "--threads", "1"]
    threads = torch.get_num_threads()
    try:
        assert main(["speed", "--json", str(path), "--parts", "steps", *arguments]) == 0
    finally:
        torch.set_num_threads(threads)
    written, printed = json.loads(path.read_text()), capsys.readouterr().out
    seconds = medians(written["seconds"])
    assert written["gradient_over_floor"] == seconds["gradient"] / seconds["floor"]
    # A turn of the floor and of the naive step has four of them.
    step = seconds["chain"] / steps.CHAIN_STEPS
    assert written["langevin_step_over_floor"] == pytest.approx(4 * step / seconds["floor"])
    assert written["langevin_step_over_naive"] == pytest.approx(4 * step / seconds["naive_step"])
    assert all(f"| `{key}` |" in printed for key in written if key.startswith(("gradient", "langevin")))
    assert written["setting"]["size"] == 16
    assert written["machine"]["threads"] == 1
    assert torch.__version__.startswith(written["versions"]["torch"])
    assert "deepinv" in written["notes"][0]


def test_throughput_is_of_training_and_of_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(figures_module, "_THROUGHPUT_STEPS", 2)
    monkeypatch.setattr(figures_module, "_SAMPLES", 3)
    figures = Figures()
    setting = Setting(size=32, channels=4, coils=2, batch=2, repetitions=1)
    steps_taken = []

    def chain(work, num_steps, num_samples):
        assert work.image.shape == (1, 32, 32)
        steps_taken.append((num_steps, num_samples))
        return known_chain(work, num_steps, num_samples)

    known_chain = steps.chain
    monkeypatch.setattr(steps, "chain", chain)
    configuration = Path(__file__).parents[2] / "configs" / "deepen_2d4x.yaml"
    figures_module.measure_throughput(figures, setting, configuration, track=silent)
    seconds = medians(figures.seconds)
    assert steps_taken == [(2, 3)]
    assert figures.ratios == {
        "training_images_per_second": 2 / seconds["update_100_steps"],
        "samples_100_of_100_steps_seconds": seconds["samples_100_of_100_steps"],
    }


def test_the_table_says_what_holds_and_by_how_much_the_rest_is_missed():
    text = table(Figures(ratios={"gradient_over_floor": 1.05, "memory_over_varnet": 0.3}))
    assert "| `gradient_over_floor` | 1.05 | ≤ 1.1 | holds |" in text
    assert "missed by 100 %" in text


def test_a_figure_that_is_no_number_does_not_hold():
    assert "holds" not in table(Figures(ratios={"gradient_over_floor": math.nan}))


def test_every_bound_is_of_a_figure_that_is_measured(monkeypatch, work):
    figures = Figures()
    monkeypatch.setattr(steps, "has_deepinv", lambda: False)
    measure_steps(figures, TINY, track=silent)
    steps_keys = set(figures.ratios) - {"gradient_bfloat16_over_floor"} | {"langevin_step_over_deepinv_ula"}
    assert steps_keys <= set(BOUNDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--device", "cuda:99"], ["device", "'cuda:99'", "cpu"]),
     (["--size", "0"], ["size", "0"]), (["--threads", "-1"], ["--threads", "-1"]),
     (["--parts", "memory", "--configuration", "missing.yaml"], ["missing.yaml", "no such configuration"])],
)  # fmt: skip
def test_bad_arguments_end_with_one_line(tmp_path, capsys, arguments, words):
    threads = torch.get_num_threads()
    try:
        assert main(["speed", "--json", str(tmp_path / "speed.json"), *arguments]) == 2
    finally:
        torch.set_num_threads(threads)
    (line,) = capsys.readouterr().err.strip().splitlines()
    for word in words:
        assert word in line
    assert not (tmp_path / "speed.json").exists()
