"""What training and prediction share: the model out of its wrappers, and the cores they may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from direct.nn.mri_models import MRIModelEngine
from direct.utils import communication

from direct_deepen.data.batch import problem_from_batch
from direct_deepen.data.coil_maps import coil_maps_of_batch
from direct_deepen.engines.reconstruction import Reconstruction, reconstruct
from direct_deepen.engines.settings import EngineSettings
from direct_deepen.inference import Inference
from direct_deepen.objectives import Objective
from direct_deepen.physics.problem import Problem
from direct_deepen.priors.cpu.allocator import keep_freed_pages


class EngineBase(MRIModelEngine):
    """DIRECT's engine, with the system that it trains and reconstructs by."""

    settings: EngineSettings
    objective: Objective
    inference: Inference
    seed: int
    std_scale: float | None = None

    @property
    def prior(self) -> torch.nn.Module:
        """The model itself, out of any wrapper for parallel training."""
        prior = getattr(self.model, "module", self.model)
        assert isinstance(prior, torch.nn.Module)
        return prior

    @torch.no_grad()
    def _problem(self, data: dict[str, Any]) -> Problem:
        cache = None if self.checkpointer is None else Path(self.checkpointer.save_directory) / "coil_maps"
        return problem_from_batch(data, coil_maps_of_batch(data, self.settings.coil_maps, cache))

    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Return the reconstruction of a batch, and what its posterior files hold."""
        return reconstruct(problem, self.prior, self.inference, seed=self.seed, std_scale=self.std_scale)


@contextmanager
def all_cores(device: str) -> Iterator[None]:
    """Give the solvers their cores back: DIRECT's command line sets one thread, which suits its transforms only.

    The allocator keeps freed memory from then on, see :func:`~direct_deepen.priors.cpu.allocator.keep_freed_pages`.
    """
    before = torch.get_num_threads()
    if str(device).startswith("cpu"):
        keep_freed_pages()
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // communication.get_world_size()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
