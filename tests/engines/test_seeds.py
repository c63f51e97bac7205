"""Every process of a command knows its seed, also those that DIRECT spawns and does not seed."""

import sys

import pytest
import tiny_direct
import torch
from direct.utils import communication, set_all_seeds

from direct_deepen.engines.commands import command_seed, process_seed, reported_seed, torch_seed


@pytest.fixture
def command(monkeypatch):
    def run_as(*arguments, processes=1):
        monkeypatch.setattr(sys, "argv", list(arguments))
        monkeypatch.setattr(communication, "get_world_size", lambda: processes)

    return run_as


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [(("direct", "predict", "output", "--seed", "7", "--device", "cpu"), 7), (("direct", "train", "runs"), 42),
     (("direct", "train", "runs", "--see=3"), 3), (("direct", "predict", "output", "--seed", "0"), 0),
     (("direct", "upload", "--seed", "7"), None), (("/env/bin/direct", "train", "runs", "--seed", "7"), 7),
     (("/env/lib/direct/cli/cli.py", "train", "runs", "--seed", "7"), 7),
     # Another program has a seed of its own, and another meaning of it.
     (("mytool.py", "train", "--seed", "abc"), None), (("mytool.py", "predict", "--seed", "7"), None),
     (("direct", "train", "--seed", "abc"), None), (("mytool.py", "train", "--seed"), None),
     (("pytest", "-q"), None), (("python",), None)],
)  # fmt: skip
def test_the_seed_is_that_of_directs_command_and_its_default(command, arguments, seed):
    command(*arguments)
    assert command_seed() == seed


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_torch_is_seeded_as_direct_does_it(seed):
    with tiny_direct.process_as_before():
        set_all_seeds(seed)
        assert torch.initial_seed() == torch_seed(seed)


def test_a_spawned_process_has_the_seed_of_the_one_that_spawned_it(command):
    with tiny_direct.process_as_before():
        set_all_seeds(7)
        parent = torch.initial_seed()
        torch.seed()  # what a new process has
        command("direct", "predict", "output", "--seed", "7", processes=2)
        assert process_seed() == parent
        # One process was seeded itself.
        command("direct", "predict", "output", "--seed", "7")
        assert process_seed() == torch.initial_seed() != parent


def test_the_seed_that_is_reported_is_the_one_to_type(command):
    command("direct", "predict", "output", "--seed", "7")
    assert reported_seed(torch_seed(7)) == 7
    # A script of its own, with seeds of its own.
    assert reported_seed(123) == 123
    command("python")
    assert reported_seed(123) == 123
