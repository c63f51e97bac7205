"""Two processes with gloo against one: the same weights after an update, and how many images a second.

python -m projects.speed.two_processes --output projects/speed/results/two_processes.json
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.setting import Setting, Workload, workload
from benchmarks.steps import NOISE_STD, STEP_SIZE
from direct_deepen.inference import langevin
from direct_deepen.objectives import contrastive_loss


def update(work: Workload, energy: nn.Module, images: list[int], num_steps: int, optimizer: torch.optim.SGD) -> None:
    """One update on some images of the workload, each with a chain and a generator of its own."""
    true, samples = [], []
    for image in images:
        index = torch.tensor([image])
        run = langevin(
            work.A.select(index),
            work.masked_kspace[index],
            work.energy,
            noise_std=NOISE_STD,
            step_size=STEP_SIZE,
            num_steps=num_steps,
            init=work.image[index],
            generator=torch.Generator().manual_seed(image),
        )
        true.append(work.image[index])
        samples.append(run.images[0])
    values = energy(torch.cat([*true, *samples]))
    contrastive_loss(values[: len(images)], values[len(images) :]).backward()
    optimizer.step()
    optimizer.zero_grad()


def run(setting: Setting, images: list[int], updates: int, num_steps: int, *, parallel: bool) -> tuple[float, dict]:
    """Seconds of an update, the first one left out, and the weights after all of them."""
    work = workload(setting)
    energy = DistributedDataParallel(work.energy) if parallel else work.energy
    # The loss is a sum over pixels.
    optimizer = torch.optim.SGD(work.energy.parameters(), lr=8.0 / (setting.channels * setting.size**2))
    for number in range(updates):
        if number == 1:
            begin = time.perf_counter()
        update(work, energy, images, num_steps, optimizer)
    return (time.perf_counter() - begin) / (updates - 1), work.energy.state_dict()


def worker(rank: int, folder: str, setting: Setting, updates: int, num_steps: int) -> None:
    """One of two processes, with one image and one thread; they meet in a file, so that no port need be free."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    result = run(setting, [rank], updates, num_steps, parallel=True)
    if rank == 0:
        torch.save(result, f"{folder}/rank0.pt")
    # Who leaves while the other still talks takes it down.
    distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    """Measure both ways and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--updates", type=int, default=6)
    arguments = parser.parse_args()
    setting = Setting(size=arguments.size, channels=arguments.channels, batch=2)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(worker, (folder, setting, arguments.updates, arguments.steps), nprocs=2)
        together, weights = torch.load(f"{folder}/rank0.pt")
    seconds = {"two processes, one thread each": together}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        seconds[f"one process, {threads} thread{'s' * (threads > 1)}"], alone = run(
            setting, [0, 1], arguments.updates, arguments.steps, parallel=False
        )
    begin = workload(setting).energy.state_dict()
    figures = {
        "images_a_second": {name: 2 / value for name, value in seconds.items()},
        "largest_relative_difference_of_weights": _largest_difference(weights, alone),
        "largest_relative_change_of_weights": _largest_difference(begin, alone),
        "setting": {"size": setting.size, "channels": setting.channels, "coils": setting.coils, "images": 2}
        | {"steps": arguments.steps, "updates": arguments.updates},
    }
    arguments.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


def _largest_difference(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    return max(float((weights[name] - other).norm() / other.norm()) for name, other in others.items())


if __name__ == "__main__":
    main()
