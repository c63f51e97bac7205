"""One of two processes that train in parallel: what the test of parallel training starts twice."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import recorded
import tiny_direct
import torch
from direct.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate

from direct_deepen.engines.commands import process_seed
from direct_deepen.errors import DivergenceError

WARM_START, CONTRASTIVE = 0, 5
"""An iteration of either phase."""


def run(rank: int, folder: Path) -> None:
    """Take a step of either phase alone, then in parallel, and write gradients and images to the folder."""
    torch.set_num_threads(1)
    # DIRECT builds the engine after the process group; it would want a group for every machine, too, which only its
    # launcher makes.
    environment = tiny_direct.build_environment(
        folder / f"rank_{rank}", tiny_direct.recorded(tiny_direct.configuration())
    )
    samples = tiny_direct.training_samples(environment, folder / "data")
    volume = [default_collate(samples[: tiny_direct.SLICES]), default_collate(samples[tiny_direct.SLICES :])]
    engine = environment.engine
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    try:
        alone, core = {}, engine.model
        for iteration in (WARM_START, CONTRASTIVE):
            alone[iteration] = step(engine, volume[rank], iteration)
        engine.model = DistributedDataParallel(core, broadcast_buffers=False, find_unused_parameters=False)
        parallel = {iteration: step(engine, volume[rank], iteration) for iteration in (WARM_START, CONTRASTIVE)}
        # Once more with the same data in both: what still differs is drawn.
        same = step(engine, volume[0], CONTRASTIVE)
        troubled = step_with_trouble_in_rank_0(engine, volume[rank], rank)
        content = {"seed": process_seed()}
        content |= {"alone": alone, "parallel": parallel, "same": same, "troubled": troubled}
        torch.save(content, folder / f"rank_{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def step_with_trouble_in_rank_0(engine: Any, batch: dict[str, Any], rank: int) -> dict[str, Any]:
    """One iteration in which the chains of one rank diverge: gradients and learning rates after it."""

    def diverge(_: Any) -> None:
        if rank == 0:
            raise DivergenceError("langevin: 1 of 2 chains diverged")

    rate = engine.cfg.training.lr
    engine._lr_scheduler = SimpleNamespace(base_lrs=[rate])
    with EventStorage(CONTRASTIVE), recorded.listening(recorded.BEFORE_UPDATE, diverge):
        engine.model.train()
        engine.model.zero_grad()
        engine._do_iteration(batch)
    gradients = [name for name, parameter in engine.prior.named_parameters() if parameter.grad is not None]
    return {"gradients": gradients, "factor": engine._lr_scheduler.base_lrs[0] / rate}


def step(engine: Any, batch: dict[str, Any], iteration: int) -> dict[str, Any]:
    """One iteration as DIRECT's loop calls it: gradients, and the images that the loss was evaluated at."""
    images = []
    core = engine.prior
    hook = core.register_forward_pre_hook(lambda module, inputs: images.append(inputs[0].detach()))
    engine.model.train()
    engine.model.zero_grad()
    with EventStorage(iteration):
        engine._do_iteration(batch)
    hook.remove()
    gradients = {name: parameter.grad.clone() for name, parameter in core.named_parameters()}
    # The warm start begins with its noisy images; the contrastive loss comes after all steps of the chains.
    return {"gradients": gradients, "images": images[0 if iteration == WARM_START else -1]}
