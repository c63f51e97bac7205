"""The training half of the engine: DIRECT's loop, resumed where it was left, with a guard."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from direct.data.samplers import ConcatDatasetBatchSampler
from direct.utils import communication
from direct.utils.events import get_event_storage
from torch.utils.data import Dataset, Sampler

from direct_deepen.data.direct_options import require_data
from direct_deepen.data.empty import of_equal_shape, without_empty
from direct_deepen.data.prewhitening import with_prewhitening
from direct_deepen.data.volumes import looked_at
from direct_deepen.engines.best import BEST, BestCheckpoint
from direct_deepen.engines.checkpoints import (
    LOADING_ERRORS,
    RunCheckpointer,
    last_checkpoint,
    repair_run,
    require_weights_of,
    restore_states,
    state_path,
)
from direct_deepen.engines.commands import advance_training, all_cores, bad_input_told, command_bar
from direct_deepen.engines.guard import Guard
from direct_deepen.engines.output_folder import require_all_read, tell_passed_over
from direct_deepen.engines.prediction import Prediction
from direct_deepen.errors import DeepenError, DivergenceError, require
from direct_deepen.files import disk_errors_reported
from direct_deepen.objectives import Loss, Objective
from direct_deepen.posterior.misfit import energy_of_object
from direct_deepen.priors import Averaged, DifferentiableEnergy

_LOGGED_VALUES = 100
"""Values that are kept of whatever is logged."""

_ENERGY_INTERVAL, _ENERGY_MEMORY = 10, 100
"""Updates between two looks at the energy of their images, and how many of these count."""


class _EndOfTraining(Exception):  # noqa: N818
    """Leaves DIRECT's loop before its last iteration."""


class Training(Prediction):
    """The engine with an objective besides, for ``direct train``."""

    objective: Objective
    _lr_scheduler: Any = None
    _guard: Guard | None = None
    _start_iteration = 0
    _order_seed: int | None = None
    _best: BestCheckpoint | None = None
    _energy: dict[str, float]
    """Count, mean and variance of E over the number of pixels, of reference images: part of every checkpoint."""
    _rollbacks = 0
    _without_step: int | None = None
    """The iteration of the last rollback, which took no step."""

    # ---- An update

    def before_update(self, iteration: int) -> None:
        """Prepare averages, optimizer and guard.

        Where a phase of training begins, the optimizer begins anew, with DIRECT's warm-up of the learning rate once
        more: without Adam's moments its first steps are as long as the learning rate in every weight. DIRECT's
        scheduler sets the rate anew after every step, so that what is changed here holds for one.
        """
        if iteration > 0 and iteration - 1 != self._without_step:
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
        storage.add_scalar("train/rollbacks", self._rollbacks, smoothing_hint=False)
        if self._bar is not None:
            advance_training(self._bar, float(value.detach()) if trouble is None else math.nan, storage.latest())
        return value.detach()

    def remember_energy(self, iteration: int, reference: torch.Tensor) -> None:
        """Let E of the images of an update take part in its running mean and variance, now and then.

        Recent ones count more, as E changes with the weights: exponential moments (Finch, 2009), at first plain ones.
        """
        prior = self.prior
        if iteration % _ENERGY_INTERVAL or not isinstance(prior, DifferentiableEnergy):
            return
        seen = self._energy
        for energy in energy_of_object(prior, reference).tolist():
            if not math.isfinite(energy):  # of weights that the guard takes back
                continue
            count, mean, variance = (seen.get(name, 0.0) for name in ("count", "mean", "variance"))
            weight = max(1 / (count + 1), 1 / _ENERGY_MEMORY)
            change = energy - mean
            mean, variance = mean + weight * change, (1 - weight) * (variance + weight * change**2)
            seen.update(count=count + 1, mean=mean, variance=variance)

    @property
    def guard(self) -> Guard:
        """The guard of this training."""
        if self._guard is None:
            self._guard = Guard(self.objective.guard, self.prior, self._require_optimizer())
        return self._guard

    def roll_back(self, iteration: int, trouble: str) -> None:
        """Go back to the last good state with half the learning rate, and let this iteration pass without a step.

        A :class:`DivergenceError` ends training where this has happened too often.
        """
        if self._lr_scheduler is None or self._rollbacks >= self.guard.settings.max_rollbacks:
            raise DivergenceError(
                f"iteration {iteration}: {trouble}; allowed: finite values within model.objective.guard "
                f"(training went back {self._rollbacks} times)"
            )
        kept = self.guard.roll_back()
        self.objective.roll_back()
        self._lr_scheduler.base_lrs = [rate / 2 for rate in self._lr_scheduler.base_lrs]
        self._rollbacks, self._without_step = self._rollbacks + 1, iteration
        self.take_no_step()
        self.logger.warning(
            "Iteration %i: %s. Back to the state of iteration %i with half the learning rate (rollback %i).",
            iteration, trouble, kept, self._rollbacks,
        )  # fmt: skip

    def take_no_step(self) -> None:
        """Let the step that DIRECT takes after every iteration change nothing, Adam's moments and count included.

        It passes over weights without a gradient. In mixed precision its scaler wants gradients, and takes no step
        where they are infinite.
        """
        for group in self._require_optimizer().param_groups:
            for parameter in group["params"]:
                infinite = torch.full_like(parameter, math.inf)
                parameter.grad = self._scaler.scale(infinite) if self._scaler.is_enabled() else None

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
        with bad_input_told(), all_cores(self.device), disk_errors_reported(Path(experiment_directory)):
            states = {"optimizer": optimizer, "lr_scheduler": lr_scheduler}
            self._require_states(states, Path(experiment_directory), resume, initialization)
            for dataset in [*training_datasets, *validation_datasets]:
                require_data(dataset, "a dataset of training or validation")
            # Now, not at the first validation hours later.
            self.build_metrics(self.cfg.validation.metrics)
            self._require_metric(validation_datasets)
            both = (("training", training_datasets), ("validation", validation_datasets))
            passed_over = [
                require_all_read(dataset, section, f"{key}.datasets[{i}]", [Path(experiment_directory)])
                for key, datasets in both
                for i, (dataset, section) in enumerate(zip(datasets, self.cfg[key].datasets, strict=True))
            ]
            training, validation = (
                [
                    without_empty(
                        with_prewhitening(looked_at(dataset), self.settings.prewhitening), f"{key}.datasets[{i}]"
                    )
                    for i, dataset in enumerate(datasets)
                ]
                for key, datasets in both
            )
            # A batch is of one dataset.
            training = [part for dataset in training for part in of_equal_shape(dataset)]
            kwargs |= {"resume": resume, "initialization": initialization}
            super().train(optimizer, lr_scheduler, training, experiment_directory, validation, *args, **kwargs)
            tell_passed_over([path for paths in passed_over for path in paths], [*training, *validation])

    def _require_metric(self, validation_datasets: list[Dataset]) -> None:
        """Raise :class:`DeepenError` unless validation has the metric that the best checkpoint is chosen by."""
        best, known = self.objective.best, list(self.cfg.validation.metrics)
        require(
            best.metric in known if best.metric else best.patience == 0,
            f"model.objective.best.metric is {best.metric!r}; allowed: one of validation.metrics, {', '.join(known)}",
        )
        require(
            not best.metric or bool(validation_datasets),
            f"model.objective.best.metric is {best.metric!r}, but validation.datasets is empty",
        )

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
        self._undo_data_parallel()
        training = self.cfg.training
        for warning in self.objective.warnings(
            num_slices=sum(len(dataset) for dataset in training_datasets),
            batch_size=training.batch_size,
            num_iterations=training.num_iterations,
        ):
            self.logger.warning(warning)
        checkpointer = self._require_checkpointer()
        self._start_iteration, self._order_seed, self._energy = start_iter, None, {}
        if start_iter > 0:
            self._restore(Path(checkpointer.save_directory), start_iter - 1)
        run, self._best = Path(checkpointer.save_directory), None
        self.checkpointer = RunCheckpointer(
            checkpointer, self._state, start_iter - 1, self.settings.meaning(), self._energy
        )
        if self.objective.best.metric:
            self._best = BestCheckpoint(self.objective.best, run, start_iter)
            if self._best.is_last:
                self.logger.warning("%s: training has ended for want of a better checkpoint.", run)
                return
        with (
            suppress(_EndOfTraining),
            command_bar("train", "iteration", training.num_iterations, start_iter) as self._bar,
        ):
            super().training_loop(training_datasets, start_iter, *args, **kwargs)

    def _undo_data_parallel(self) -> None:
        """Train on one device: the replicas of DataParallel have no parameters, and gradients stay with them."""
        if isinstance(self.model, torch.nn.DataParallel):
            self.model = self.model.module
            self.logger.warning(
                "%i GPUs are visible, and training uses one: with --num-gpus %i it uses them all.",
                torch.cuda.device_count(), torch.cuda.device_count(),
            )  # fmt: skip

    def validation_loop(
        self, datasets: list, losses: Any, directory: Path, iteration: int, *args: Any, **kwargs: Any
    ) -> None:
        """Validate as DIRECT does, and keep the checkpoint if it is the best so far."""
        super().validation_loop(datasets, losses, directory, iteration, *args, **kwargs)
        if self._best is None:
            return
        latest, end = get_event_storage().latest(), f"/{self.objective.best.metric}_metric"
        values = [value for name, value in latest.items() if name.startswith("val/") and name.endswith(end)]
        # Of several processes the first decides.
        value = communication.all_gather(sum(values) / len(values))[0]
        if self._best.add(iteration, value):
            self._saved_by().save_as(BEST, iteration)
            self.logger.info("The best checkpoint so far, %s %g, is %s.pt.", self.objective.best.metric, value, BEST)
        if communication.is_main_process():
            self._best.write()

    def write_to_logs_at_interval(self, iteration: int, total: int) -> None:
        """Write logs as DIRECT does, and end training if no checkpoint has become the best for long enough."""
        super().write_to_logs_at_interval(iteration, total)
        for history in get_event_storage().histories().values():
            # DIRECT keeps a million values of everything, 1.3 kB an iteration, and logs medians of the last 20.
            history._max_length = _LOGGED_VALUES
        if self._best is not None and self._best.is_last and iteration + 1 < total:
            if self._saved_by().iteration != iteration:
                self._saved_by().save(iteration)
            self.logger.info(
                "Training ends at iteration %i: %i validations brought no better %s.",
                iteration, self.objective.best.patience, self.objective.best.metric,
            )  # fmt: skip
            raise _EndOfTraining

    def _saved_by(self) -> RunCheckpointer:
        assert isinstance(self.checkpointer, RunCheckpointer)
        return self.checkpointer

    def _restore(self, run: Path, iteration: int) -> None:
        """Go on in the state beside a checkpoint: with the chains of this process, and the first one's of all else.

        Where all processes go back to has to be the same.
        """
        # Early states have no count, but DIRECT's checkpoint has the rate that training began with beside the halved.
        begun = self._require_optimizer().param_groups[0]["initial_lr"]
        self._rollbacks, self._without_step = round(math.log2(begun / self._lr_scheduler.base_lrs[0])), None
        if begun != self.cfg.training.lr:
            self.logger.warning(
                "training.lr is %g, but training began with %g, which a resumed one goes on from: begin another with "
                "--initialization-checkpoint for other rates.", self.cfg.training.lr, begun,
            )  # fmt: skip
        first, own = state_path(run, iteration, 0), state_path(run, iteration)
        if not first.exists():
            self.logger.warning("%s is missing: persistent chains and the memory of the guard begin anew.", first)
            return
        written, processes = len(list(run.glob(f"training_state_{iteration}_*.pt"))), communication.get_world_size()
        if written != processes:
            self.logger.warning(
                "%s: states of %i processes, resumed by %i: %s.", run, written, processes,
                "chains of the others begin anew" if written > processes else "the others go on with the first one's",
            )  # fmt: skip
        path = first
        try:
            state = _tensors_on_cpu(first)
            # The seeds are those that training began with.
            self.seed, self._order_seed = int(state["seed"]), int(state["order_seed"])
            self._rollbacks = int(state.get("rollbacks", self._rollbacks))
            self._without_step = state.get("without_step")
            self._energy.update(state.get("training_energy", {}))
            self.guard.load_state_dict(state["guard"])
            if own != first and own.exists():
                path, state = own, _tensors_on_cpu(own)
            self.objective.load_state_dict(state)
        except LOADING_ERRORS as error:
            raise DeepenError(
                f"{path}: not a state of training ({type(error).__name__}); delete it to go on without"
            ) from error

    def _state(self) -> dict[str, Any]:
        """Return what training needs to go on and DIRECT's checkpoint does not hold: tensors, numbers and text."""
        engine = {"seed": self.seed, "order_seed": self._order_seed, "guard": self.guard.state_dict()}
        engine["training_energy"] = dict(self._energy)
        engine |= {"rollbacks": self._rollbacks, "without_step": self._without_step}
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


def _tensors_on_cpu(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


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
