"""Which seed a process of DIRECT's commands has: DIRECT seeds the one that is started, not those spawned for GPUs."""

import sys
from random import Random  # noqa: TID251 - a generator of its own

import torch
from direct.environment import Args
from direct.utils import communication

_COMMANDS = ("train", "predict")
_LARGEST = 2**32


def command_seed() -> int | None:
    """Return ``--seed`` of the ``direct`` command that runs in this process, or spawned it; None where none does."""
    # Spawned processes have the arguments of the one that spawned them.
    name, *options = [*sys.argv[1:], ""]
    if name not in _COMMANDS:
        return None
    return int(Args(add_help=False).parse_known_args(options[:-1])[0].seed)


def torch_seed(seed: int) -> int:
    """Return what DIRECT's ``set_all_seeds(seed)`` seeds torch with."""
    return Random(seed).randint(1, _LARGEST)


def process_seed() -> int:
    """Return what torch is seeded with in this process; in one of several, what it is in the one that spawned them."""
    seed = command_seed()
    if communication.get_world_size() == 1 or seed is None:
        return torch.initial_seed()
    return torch_seed(seed)


def reported_seed(process_seed: int) -> int:
    """Return the seed that a file is to report: that of the command, if this is where ``process_seed`` is from."""
    seed = command_seed()
    return seed if seed is not None and torch_seed(seed) == process_seed else process_seed
