"""What Winograd's algorithm and an allocator that keeps its pages bring to ∇E on a CPU.

python projects/speed/convolutions.py

Convolutions take turns in one process; processes of both allocators take turns. Leave the machine alone meanwhile.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from direct_deepen import QuadraticEnergy
from direct_deepen.priors.cpu import winograd
from direct_deepen.priors.cpu.allocator import keep_freed_pages

# Channels from which Winograd's algorithm is taken.
CONVOLUTIONS = {"Winograd": winograd.CHANNELS, "direct": sys.maxsize}


def measured(size: int, channels: int, turns: int) -> dict[str, dict[str, list[float]]]:
    """Return milliseconds and page faults of ∇E in every turn, by convolution."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        energy = QuadraticEnergy(hidden_channels=channels)
        image = torch.randn(1, size, size, dtype=torch.complex64)
    found: dict[str, dict[str, list[float]]] = {name: {"ms": [], "faults": []} for name in CONVOLUTIONS}
    for turn in range(turns + 1):
        for name, winograd.CHANNELS in CONVOLUTIONS.items():
            faults, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            energy.value_and_grad(image)
            if turn > 0:  # the first one warms up
                found[name]["ms"].append(1e3 * (time.perf_counter() - begin))
                found[name]["faults"].append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
    return found


def main() -> None:
    """Print a table of medians; with ``--pages``, what one process measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--processes", type=int, default=2, help="of each allocator")
    parser.add_argument("--pages", choices=["returned", "kept"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pages:
        torch.set_num_threads(arguments.threads)
        if arguments.pages == "kept" and not keep_freed_pages():
            sys.exit("the allocator is not that of glibc")
        print(json.dumps(measured(arguments.size, arguments.channels, arguments.turns)))
        return
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for _ in range(arguments.processes):
        for pages in ("kept", "returned"):
            command = [sys.executable, *sys.argv, "--pages", pages]
            for name, values in json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout).items():
                row = found.setdefault((pages, name), {"ms": [], "faults": []})
                for key, numbers in values.items():
                    row[key] += numbers
    medians = {key: [statistics.median(row["ms"]), statistics.median(row["faults"])] for key, row in found.items()}
    best = medians["kept", "Winograd"][0]
    print("| freed pages | convolutions | ∇E (ms) | ratio | page faults |\n|---|---|---|---|---|")
    for (pages, name), (ms, faults) in medians.items():
        print(f"| {pages} | {name} | {ms:.0f} | {ms / best:.2f} | {faults:.0f} |")


if __name__ == "__main__":
    main()
