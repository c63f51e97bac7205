"""What all engines share: DIRECT's training and inference loops on one side, the core's problems on the other."""

import hashlib
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from direct.data.datasets import FastMRIDataset
from direct.engine import DoIterationOutput
from direct.nn.adaptive.utils import export_sampling_mask
from direct.nn.mri_models import MRIModelEngine
from direct.utils import communication, dict_to_device
from direct.utils.events import get_event_storage
from omegaconf import OmegaConf
from torch.utils.data import Dataset, Sampler

import direct_deepen
from direct_deepen.data.batch import names_of_batch, problem_from_batch, reference_image
from direct_deepen.data.coil_maps import coil_maps_of_batch
from direct_deepen.data.measured_masks import require_fully_sampled, require_masks_of_files
from direct_deepen.data.named_slices import NamedSlices
from direct_deepen.data.random_phase import with_random_phase
from direct_deepen.engines.checkpoints import LOADING_ERRORS, digest_of, require_states_of, require_weights_of
from direct_deepen.engines.guard import Guard, Vitals
from direct_deepen.engines.interrupted_run import mend, noted_checkpoint
from direct_deepen.engines.posterior_store import PosteriorStore, require_volumes, told_of_file
from direct_deepen.engines.prediction_bar import PredictionBar, prediction_bar
from direct_deepen.engines.reconstruction import Reconstruction
from direct_deepen.engines.reporting import exit_on_bad_input
from direct_deepen.engines.sample_order import SeededBatchSampler
from direct_deepen.engines.seeds import process_seed, told_seed
from direct_deepen.engines.settings import SystemSettings
from direct_deepen.engines.training_bar import TrainingBar, training_bar
from direct_deepen.engines.training_state import StateCheckpointer, state_path
from direct_deepen.errors import DeepenError, DivergenceError, require, require_count
from direct_deepen.files import disk_errors_reported, require_free_space
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.sense import sense
from direct_deepen.posterior.posterior_file import IN_DATA_UNITS, MEANING, FileAttributes

_HEADER_BYTES = 10_000
"""More than what an HDF5 file of a few arrays has besides them."""


class PriorEngine[Settings: SystemSettings](MRIModelEngine):
    """Base of the engines: an engine adds the loss of an update and the reconstruction of a batch, nothing else.

    The random numbers of an iteration come from a generator seeded by DIRECT's ``--seed``, the rank and the iteration.
    A resumed run goes on in the state, and with the order of samples, of the interrupted one: it becomes what that
    would have become. A guard takes training back to its last good state when an update shows trouble.

    Bad settings and bad data end the command with one line in the log and exit code 2; training writes a checkpoint
    first.

    Attributes
    ----------
    settings_type
        What the engine reads from the model section; its fields are keys there.
    settings
        What it has read.
    """

    settings_type: ClassVar[type[SystemSettings]]
    settings: Settings

    def __init__(
        self,
        cfg: Any,
        model: torch.nn.Module,
        device: str,
        forward_operator: Callable,
        backward_operator: Callable,
        mixed_precision: bool = False,
        **models: torch.nn.Module,
    ) -> None:
        super().__init__(cfg, model, device, forward_operator, backward_operator, mixed_precision, **models)
        with exit_on_bad_input():
            self.settings = cast("Settings", settings_from_config(cfg, self.settings_type))
            require(
                (cfg.physics.forward_operator, cfg.physics.backward_operator) == ("fft2", "ifft2"),
                f"physics.forward_operator is {cfg.physics.forward_operator!r} and physics.backward_operator "
                f"{cfg.physics.backward_operator!r}; allowed: 'fft2' and 'ifft2'",
            )
        self.seed = process_seed()
        self._posterior_directory: Path | None = None
        self._store: PosteriorStore | None = None
        self._bar: PredictionBar | None = None
        self._training_bar: TrainingBar | None = None
        self._guard: Guard | None = None
        self._lr_scheduler: Any = None
        self._start_iteration = 0
        self._order_seed: int | None = None

    # ---- What an engine adds

    @abstractmethod
    def loss_name(self, iteration: int) -> str:
        """Return the name that the loss of an iteration is logged by."""

    @abstractmethod
    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Return the loss of an update, with a graph to the weights, and what the guard is to look at.

        Parameters
        ----------
        reference
            Fully sampled images in scaled intensities, complex (batch, height, width).
        problem
            Undersampled data of the same images.
        iteration
            Number of the iteration.
        generator
            Source of all randomness of the iteration.

        Raises
        ------
        DivergenceError
            If the finite numbers are left: trouble for the guard.
        """

    @abstractmethod
    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Return the reconstruction of a batch."""

    def before_update(self, iteration: int) -> None:
        """Prepare the optimizer for an iteration; by default nothing is to be done."""

    def build_metrics(self, metrics_list: Any) -> dict[str, Callable]:
        """Return DIRECT's metrics of these names.

        Raises
        ------
        DeepenError
            If DIRECT has none of a name.
        """
        try:
            return super().build_metrics(metrics_list)
        except AttributeError as error:
            raise DeepenError(f"metrics are {list(metrics_list)!r}; allowed: those of DIRECT ({error})") from error

    # ---- An iteration

    @property
    def prior(self) -> torch.nn.Module:
        """The model itself, out of any wrapper for parallel training."""
        prior = getattr(self.model, "module", self.model)
        assert isinstance(prior, torch.nn.Module)
        return prior

    def build_loss(self) -> dict:
        """Return no losses: the objective is the engine's own."""
        return {}

    def _do_iteration(
        self,
        data: dict[str, Any],
        loss_fns: dict[str, Callable] | None = None,
        regularizer_fns: dict[str, Callable] | None = None,
    ) -> DoIterationOutput:
        data = dict_to_device(data, self.device)
        try:
            with torch.no_grad():
                data["sensitivity_map"] = self.compute_sensitivity_map(data["sensitivity_map"])
            if self.model.training:
                image, losses = self._train_on(data, self._problem(data))
            else:
                image, losses = self._reconstruct(data), {}
        except DeepenError as error:
            # A RuntimeError makes DIRECT's training loop write a checkpoint before it ends.
            raise RuntimeError(str(error)) from error
        return DoIterationOutput(
            output_image=image.abs(),
            sensitivity_map=data["sensitivity_map"],
            data_dict=losses,
            sampling_mask=export_sampling_mask(data),
        )

    @torch.no_grad()
    def _problem(self, data: dict[str, Any]) -> Problem:
        cache = None if self.checkpointer is None else Path(self.checkpointer.save_directory) / "coil_maps"
        return problem_from_batch(data, coil_maps_of_batch(data, self.settings.coil_maps, cache))

    def _train_on(self, data: dict[str, Any], problem: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        objective = self.settings.objective
        storage = get_event_storage()
        iteration = storage.iter
        generator = self._iteration_generator(iteration)
        if objective.random_phase > 0:
            problem = with_random_phase(problem, objective.random_phase)
        reference = reference_image(data, problem)
        self.before_update(iteration)
        if not self.guard.has_state:
            self.guard.remember(iteration)
        try:
            loss, vitals = self.loss(reference, problem, iteration, generator)
            trouble = self.guard.trouble(vitals)
        except DivergenceError as error:
            loss, trouble = torch.zeros((), device=reference.device), str(error)
        trouble = self._trouble_of_any_rank(trouble)
        if trouble is None:
            self.guard.remember(iteration)
            self._scaler.scale(loss).backward()
        else:
            self.roll_back(iteration, trouble)
            loss = torch.zeros_like(loss)
        storage.add_scalar("train/rollbacks", self._rollbacks(), smoothing_hint=False)
        if self._training_bar is not None:
            self._training_bar.advance(vitals.loss if trouble is None else math.nan, storage.latest())
        return problem.to_data_units(reference), {self.loss_name(iteration): loss.detach()}

    def _iteration_generator(self, iteration: int) -> torch.Generator:
        text = f"{self.seed}/{communication.get_rank()}/{iteration}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
        return torch.Generator(self.device).manual_seed(seed)

    # ---- The guard

    @property
    def guard(self) -> Guard:
        """The guard of this training."""
        if self._guard is None:
            self._guard = Guard(self.settings.objective.guard, self.prior, self._require_optimizer())
        return self._guard

    def _trouble_of_any_rank(self, trouble: str | None) -> str | None:
        """All ranks go back together, or none does: their weights are to stay the same."""
        found = [message for message in communication.all_gather(trouble) if message is not None]
        return found[0] if found else None

    def _rollbacks(self) -> int:
        """How often the learning rate was halved. Read off the scheduler, whose state every checkpoint holds."""
        if self._lr_scheduler is None:
            return 0
        return round(math.log2(self.cfg.training.lr / self._lr_scheduler.base_lrs[0]))

    def roll_back(self, iteration: int, trouble: str) -> None:
        """Go back to the last good state with half the learning rate, and let this iteration pass without a step.

        Raises
        ------
        DivergenceError
            If this has happened too often, or outside of :meth:`train`.
        """
        if self._lr_scheduler is None or self._rollbacks() >= self.guard.settings.max_rollbacks:
            raise DivergenceError(
                f"iteration {iteration}: {trouble}; allowed: finite values within model.objective.guard "
                f"(training went back {self._rollbacks()} times)"
            )
        kept = self.guard.roll_back()
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

    # ---- Reconstruction

    def _start(self, problem: Problem) -> torch.Tensor:
        """Return the SENSE solution of the configuration."""
        return sense(problem.A, problem.masked_kspace, regularization=self.settings.sense_regularization)

    def _reconstruct(self, data: dict[str, Any]) -> torch.Tensor:
        if self._store is None or self._bar is None:
            return self.reconstruction(self._problem(data)).image
        names = names_of_batch(data)
        # DIRECT's factor takes the units of the batch to those of the file.
        factor = data["scaling_factor"]
        with self._bar.batch(names):
            image = self._store.estimate(names)
            if image is None:
                arrays = self.reconstruction(self._problem(data)).arrays
                image = self._store.add(names, [in_file_units(arrays, i, factor[i]) for i in range(len(names))])
        # Back from the units of the file in either case: a run that was cut short ends with the very same digits.
        return torch.from_numpy(image).to(factor.device) / factor[:, None, None].float()

    # ---- DIRECT's commands

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
        with exit_on_bad_input(), all_cores(self.device), disk_errors_reported(Path(experiment_directory)):
            used, noted = initialization, None
            if resume:
                if communication.is_main_process():
                    mend(Path(experiment_directory))
                communication.synchronize()
                noted = noted_checkpoint(Path(experiment_directory))
                used = noted or initialization
            if used:
                require_weights_of(self.prior, used)
            if noted:
                require_states_of({"optimizer": optimizer, "lr_scheduler": lr_scheduler}, noted)
            for dataset in [*training_datasets, *(validation_datasets or [])]:
                for path in dataset.volume_indices if isinstance(dataset, FastMRIDataset) else ():
                    require_fully_sampled(Path(path))
            # Now, not at the first validation hours later.
            self.build_metrics(self.cfg.validation.metrics)
            super().train(
                optimizer,
                lr_scheduler,
                [NamedSlices(dataset) for dataset in training_datasets],
                experiment_directory,
                [NamedSlices(dataset) for dataset in validation_datasets or []],
                *args,
                resume=resume,
                initialization=initialization,
                **kwargs,
            )

    def training_loop(self, training_datasets: list, start_iter: int, *args: Any, **kwargs: Any) -> None:
        """Run DIRECT's loop from ``start_iter``, in the state that training was left in."""
        checkpointer = self._require_checkpointer()
        self._start_iteration, self._order_seed = start_iter, None
        if start_iter > 0:
            self._restore(state_path(Path(checkpointer.save_directory), start_iter - 1))
        self.checkpointer = StateCheckpointer(checkpointer, self.training_state, start_iter - 1)
        with training_bar(start_iter, self.cfg.training.num_iterations) as self._training_bar:
            super().training_loop(training_datasets, start_iter, *args, **kwargs)

    def _restore(self, path: Path) -> None:
        if not path.exists():
            self.logger.warning("%s is missing: persistent chains and the memory of the guard begin anew.", path)
            return
        try:
            self.restore_training_state(dict(torch.load(path, map_location="cpu", weights_only=True)))
        except LOADING_ERRORS as error:
            raise DeepenError(
                f"{path}: not a state of training ({type(error).__name__}); delete it to go on without"
            ) from error

    def training_state(self) -> dict[str, Any]:
        """Return what training needs to go on and DIRECT's checkpoint does not hold.

        Dictionaries and lists of tensors, numbers and text, with the keys ``seed``, ``order_seed`` and ``guard``; an
        engine with more state adds keys.
        """
        return {"seed": self.seed, "order_seed": self._order_seed, "guard": self.guard.state_dict()}

    def restore_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on in the state that :meth:`training_state` returned, with the seeds that training began with."""
        self.seed, self._order_seed = int(state["seed"]), int(state["order_seed"])
        self.guard.load_state_dict(state["guard"])

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

    def predict(
        self,
        dataset: Dataset,
        experiment_directory: Path,
        checkpoint: int | str | Path | None = -1,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Predict as DIRECT does, with all cores, and write posterior files to the experiment directory."""
        slices = {Path(name): len(indices) for name, indices in dataset.volume_indices.items()}  # type: ignore[attr-defined]
        self._posterior_directory = Path(experiment_directory)
        try:
            with exit_on_bad_input(), all_cores(self.device), prediction_bar(slices) as self._bar:
                require_volumes(slices)
                if isinstance(dataset, FastMRIDataset):
                    self._require_masks(slices)
                require_count("inference.batch_size", self.cfg.inference.batch_size)
                if isinstance(checkpoint, str | Path) and checkpoint != "latest":
                    require_weights_of(self.prior, checkpoint)
                output = super().predict(NamedSlices(dataset), experiment_directory, checkpoint, *args, **kwargs)
                # DIRECT writes when this has returned; what is in our files is read from there next time.
                require_free_space(Path(experiment_directory), sum(sizes_of_output(output, Path(experiment_directory))))
                return output
        finally:
            self._posterior_directory = self._store = self._bar = None

    def _require_masks(self, paths: Iterable[Path]) -> None:
        section = self.cfg.inference.dataset
        if section.transforms.masking is None:
            require_masks_of_files(section, paths)
            return
        for path in paths:
            require_fully_sampled(path)

    def reconstruct_volumes(self, data_loader: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Reconstruct as DIRECT does; in prediction, what an earlier run has finished is read from its files."""
        if self._posterior_directory is not None:
            # Only now the weights are loaded.
            volumes = data_loader.batch_sampler.sampler.volume_indices
            shared = self._file_attributes()
            attributes = {Path(name): shared | {"data": told_of_file(Path(name))} for name in volumes}
            slices = {Path(name): len(indices) for name, indices in volumes.items()}
            self._store = PosteriorStore(self._posterior_directory, slices, attributes)
        yield from super().reconstruct_volumes(data_loader, *args, **kwargs)

    def _file_attributes(self) -> FileAttributes:
        return {
            **MEANING,
            "direct_deepen_version": direct_deepen.__version__,
            "direct_version": version("direct-recon"),
            "torch_version": str(torch.__version__),
            "seed": told_seed(self.seed),
            "configuration": OmegaConf.to_yaml(self.cfg.model),
            "data_configuration": OmegaConf.to_yaml(self.cfg.inference.dataset),
            "weights_sha256": digest_of(torch.nn.ModuleDict({"model": self.prior, **self.models}).state_dict()),
            "device": str(self.device).partition(":")[0],
        }


def sizes_of_output(output: Any, directory: Path) -> Iterator[int]:
    """Yield by how many bytes, at most, the files that DIRECT writes of a prediction exceed those that are there."""
    volumes, _ = output
    for volume, mask, name in volumes:
        arrays = [array for array in (volume, mask) if array is not None]
        path = directory / Path(name).name
        there = path.stat().st_size if path.exists() else 0
        yield max(0, _HEADER_BYTES + 4 * sum(array.numel() for array in arrays) - there)


def in_file_units(arrays: Mapping[str, torch.Tensor], index: int, factor: torch.Tensor) -> dict[str, np.ndarray]:
    """Return what there is of one image of a batch, with intensities times a factor."""
    return {
        name: (value[index] * factor if name in IN_DATA_UNITS else value[index]).cpu().numpy()
        for name, value in arrays.items()
    }


def settings_from_config[Settings: SystemSettings](cfg: Any, settings_type: type[Settings]) -> Settings:
    """Return the checked settings of a DIRECT configuration's model section."""
    names = settings_type.__dataclass_fields__
    section = OmegaConf.create({name: cfg.model[name] for name in names})
    settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(settings_type), section))
    assert isinstance(settings, settings_type)
    return settings


@contextmanager
def all_cores(device: str) -> Iterator[None]:
    """Give the solvers their cores back: DIRECT's command line sets one thread, which suits its transforms only."""
    before = torch.get_num_threads()
    if str(device).startswith("cpu"):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // communication.get_world_size()))
    try:
        yield
    finally:
        torch.set_num_threads(before)
