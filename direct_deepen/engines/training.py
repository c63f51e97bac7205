"""The training half of the engine: DIRECT's loop, resumed where it was left, with a guard."""

import math
from pathlib import Path
from typing import Any

import torch
from direct.data.datasets import FastMRIDataset
from direct.data.samplers import ConcatDatasetBatchSampler
from direct.utils import communication
from direct.utils.events import get_event_storage
from torch.utils.data import Dataset, Sampler

from direct_deepen.data.batch import NamedSlices
from direct_deepen.data.fastmri_file import require_fully_sampled
from direct_deepen.engines.checkpoints import (
    LOADING_ERRORS,
    RunCheckpointer,
    last_checkpoint,
    repair_run,
    require_weights_of,
    restore_states,
    state_path,
)
from direct_deepen.engines.commands import advance_training, all_cores, command_bar, exit_on_bad_input
from direct_deepen.engines.guard import Guard
from direct_deepen.engines.prediction import Prediction
from direct_deepen.errors import DeepenError, DivergenceError
from direct_deepen.files import disk_errors_reported
from direct_deepen.objectives import Loss, Objective
from direct_deepen.priors import Averaged


class Training(Prediction):
    """The engine with an objective besides, for ``direct train``."""

    objective: Objective
    _lr_scheduler: Any = None
    _guard: Guard | None = None
    _start_iteration = 0
    _order_seed: int | None = None

    # ---- An update

    def before_update(self, iteration: int) -> None:
        """Prepare averages, optimizer and guard.

        Where a phase of training begins, the optimizer begins anew, with DIRECT's warm-up of the learning rate once
        more: without Adam's moments its first steps are as long as the learning rate in every weight. DIRECT's
        scheduler sets the rate anew after every step, so that what is changed here holds for one.
        """
        if iteration > 0:
            for module in self.prior.modules():
                if isinstance(module, Averaged):
                    module.update()
        begun = self.objective.phase_start(iteration)
        if begun > 0:
            optimizer = self._require_optimizer()
            if iteration == begun:
                optimizer.state.clear()
                self.guard.forget()
            for group in optimizer.param_groups:
                group["lr"] *= min(1.0, (iteration - begun + 1) / max(1, self.cfg.training.lr_warmup_iter))
        if not self.guard.has_state:
            self.guard.remember(iteration)

    def update(self, iteration: int, loss: Loss, trouble: str | None) -> torch.Tensor:
        """Pull a loss back to the weights, or go back to an earlier state; return what is logged of it."""
        value, storage = loss.value, get_event_storage()
        for name, metric in loss.metrics.items():
            storage.add_scalar(name, metric, smoothing_hint=False)
        # All processes go back together, or none does: their weights are to stay the same.
        trouble = next(filter(None, communication.all_gather(trouble)), None)
        if trouble is None:
            self.guard.remember(iteration)
            self._scaler.scale(value).backward()
        else:
            self.roll_back(iteration, trouble)
            value = torch.zeros_like(value)
        storage.add_scalar("train/rollbacks", self._rollbacks(), smoothing_hint=False)
        if self._bar is not None:
            advance_training(self._bar, float(value.detach()) if trouble is None else math.nan, storage.latest())
        return value.detach()

    @property
    def guard(self) -> Guard:
        """The guard of this training."""
        if self._guard is None:
            self._guard = Guard(self.objective.guard, self.prior, self._require_optimizer())
        return self._guard

    def _rollbacks(self) -> int:
        """How often the learning rate was halved. Read off the scheduler, whose state every checkpoint holds."""
        if self._lr_scheduler is None:
            return 0
        return round(math.log2(self.cfg.training.lr / self._lr_scheduler.base_lrs[0]))

    def roll_back(self, iteration: int, trouble: str) -> None:
        """Go back to the last good state with half the learning rate, and let this iteration pass without a step.

        A :class:`DivergenceError` ends training where this has happened too often.
        """
        if self._lr_scheduler is None or self._rollbacks() >= self.guard.settings.max_rollbacks:
            raise DivergenceError(
                f"iteration {iteration}: {trouble}; allowed: finite values within model.objective.guard "
                f"(training went back {self._rollbacks()} times)"
            )
        kept = self.guard.roll_back()
        self.objective.roll_back()
        self._lr_scheduler.base_lrs = [rate / 2 for rate in self._lr_scheduler.base_lrs]
        # DIRECT takes a step after every iteration: this one is of length zero, and the scheduler sets the next rate.
        for group in self._require_optimizer().param_groups:
            group["lr"] = 0.0
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.logger.warning(
            "Iteration %i: %s. Back to the state of iteration %i with half the learning rate (rollback %i).",
            iteration, trouble, kept, self._rollbacks(),
        )  # fmt: skip

    # ---- DIRECT's command

    def train(
        self,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        training_datasets: list[Dataset],
        experiment_directory: Path,
        validation_datasets: list[Dataset] | None = None,
        *args: Any,
        resume: bool = False,
        initialization: Path | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Train as DIRECT does, with all cores."""
        self._lr_scheduler = lr_scheduler
        validation_datasets = validation_datasets or []
        with exit_on_bad_input(), all_cores(self.device), disk_errors_reported(Path(experiment_directory)):
            states = {"optimizer": optimizer, "lr_scheduler": lr_scheduler}
            self._require_states(states, Path(experiment_directory), resume, initialization)
            for dataset in [*training_datasets, *validation_datasets]:
                for path in dataset.volume_indices if isinstance(dataset, FastMRIDataset) else ():
                    require_fully_sampled(Path(path))
            # Now, not at the first validation hours later.
            self.build_metrics(self.cfg.validation.metrics)
            training = [NamedSlices(dataset) for dataset in training_datasets]
            validation = [NamedSlices(dataset) for dataset in validation_datasets]
            kwargs |= {"resume": resume, "initialization": initialization}
            super().train(optimizer, lr_scheduler, training, experiment_directory, validation, *args, **kwargs)

    def _require_states(self, states: dict, run: Path, resume: bool, initialization: Path | str | None) -> None:
        """Raise :class:`DeepenError` unless what training goes on from belongs to it."""
        resumed = None
        if resume:
            if communication.is_main_process():
                repair_run(run)
            communication.synchronize()
            resumed = last_checkpoint(run)
        if used := resumed or initialization:
            require_weights_of(self.prior, used)
        if resumed:
            restore_states(states, resumed)

    def training_loop(self, training_datasets: list, start_iter: int, *args: Any, **kwargs: Any) -> None:
        """Run DIRECT's loop from ``start_iter``, in the state that training was left in."""
        training = self.cfg.training
        for warning in self.objective.warnings(
            num_slices=sum(len(dataset) for dataset in training_datasets),
            batch_size=training.batch_size,
            num_iterations=training.num_iterations,
        ):
            self.logger.warning(warning)
        checkpointer = self._require_checkpointer()
        self._start_iteration, self._order_seed = start_iter, None
        if start_iter > 0:
            self._restore(state_path(Path(checkpointer.save_directory), start_iter - 1))
        self.checkpointer = RunCheckpointer(checkpointer, self._state, start_iter - 1)
        with command_bar("train", "iteration", training.num_iterations, start_iter) as self._bar:
            super().training_loop(training_datasets, start_iter, *args, **kwargs)

    def _restore(self, path: Path) -> None:
        if not path.exists():
            self.logger.warning("%s is missing: persistent chains and the memory of the guard begin anew.", path)
            return
        try:
            state = dict(torch.load(path, map_location="cpu", weights_only=True))
            # The seeds are those that training began with.
            self.seed, self._order_seed = int(state["seed"]), int(state["order_seed"])
            self.guard.load_state_dict(state["guard"])
            self.objective.load_state_dict(state)
        except LOADING_ERRORS as error:
            raise DeepenError(
                f"{path}: not a state of training ({type(error).__name__}); delete it to go on without"
            ) from error

    def _state(self) -> dict[str, Any]:
        """Return what training needs to go on and DIRECT's checkpoint does not hold: tensors, numbers and text."""
        engine = {"seed": self.seed, "order_seed": self._order_seed, "guard": self.guard.state_dict()}
        return engine | self.objective.state_dict()

    def build_batch_sampler(self, dataset: Any, batch_size: int, sampler_type: str, **kwargs: Any) -> Sampler:
        """Return DIRECT's order of samples; that of training goes on where it was left."""
        if sampler_type != "random":
            return super().build_batch_sampler(dataset, batch_size, sampler_type, **kwargs)
        # As DIRECT draws it; every process takes part in both calls, whatever it has restored.
        drawn, restored = communication.shared_random_seed(), communication.all_gather(self._order_seed)[0]
        # Spawned processes draw from generators that DIRECT has not seeded.
        first = drawn if communication.get_world_size() == 1 else self.seed
        self._order_seed = first if restored is None else restored
        return SeededBatchSampler(dataset, batch_size, seed=self._order_seed, start=self._start_iteration)


class SeededBatchSampler(ConcatDatasetBatchSampler):
    """DIRECT's endless batches of samples, all of which follow from a seed; the first ``start`` are passed over.

    A batch is of one dataset, drawn by their sizes. With the same seed in all processes, each gets its share of every
    permutation of a dataset.
    """

    def __init__(self, datasets: list[Dataset], batch_size: int, *, seed: int, start: int) -> None:
        super().__init__(datasets, batch_size, seed)
        self._weights = torch.tensor(self.weights.tolist(), dtype=torch.float64)
        # DIRECT draws the dataset of a batch from Python's global generator, which nobody restores.
        self._generator = torch.Generator().manual_seed(seed + communication.get_rank())
        for _ in range(start):
            next(self)

    def __next__(self) -> list[torch.Tensor]:
        dataset = int(torch.multinomial(self._weights, 1, generator=self._generator))
        return next(self._batch_samplers[dataset])
