"""The engine: DIRECT's training and inference loops on one side, the core's problems on the other."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from direct.engine import DoIterationOutput
from direct.nn.adaptive.utils import export_sampling_mask
from direct.nn.mri_models import MRIModelEngine
from direct.utils import communication, dict_to_device
from direct.utils.events import get_event_storage
from omegaconf import OmegaConf
from torch.utils.data import Dataset

import direct_deepen
from direct_deepen.engines.checkpoints import checkpoint_to_resume, require_weights_of
from direct_deepen.engines.coil_maps import espirit_maps_of_batch
from direct_deepen.engines.guard import Guard, Vitals
from direct_deepen.engines.persistent_chains import PersistentChains
from direct_deepen.engines.problem import Problem, problem_from_batch, reference_image, to_complex
from direct_deepen.engines.random_phase import with_random_phase
from direct_deepen.engines.reconstruction import reconstruct
from direct_deepen.engines.reporting import exit_on_bad_input
from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.engines.training_samples import TrainingSamples, chain_spread, draw_training_samples
from direct_deepen.errors import DeepenError, DivergenceError, require
from direct_deepen.objectives import contrastive_loss, denoising_score_matching_loss, energy_unit
from direct_deepen.physics.noise import complex_normal
from direct_deepen.physics.phase import align_phase
from direct_deepen.physics.sense_operator import SenseOperator
from direct_deepen.posterior_file import PosteriorWriter
from direct_deepen.priors.energy import Energy

_SPREAD_INTERVAL = 50
_LEAST_SPREAD = 0.25
"""In ε. A chain of unit step has at least ε, whatever the energy; less needs a curvature that shrinks the step."""


class DeepenEngine(MRIModelEngine):
    """Train an energy by maximum likelihood and reconstruct with it.

    Training iterations first match scores (warm start), then lower the energy of true images and raise that of samples.
    Validation and prediction return the MAP image or the posterior mean, as ``model.inference.estimator`` says;
    prediction also writes posterior files beside DIRECT's reconstructions, volume by volume.

    The random numbers of an iteration come from a generator seeded by DIRECT's ``--seed``, the rank and the iteration:
    a resumed run draws what the uninterrupted one would have drawn.

    Bad settings and bad data end the command with one line in the log and exit code 2; training writes a checkpoint
    first.
    """

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
            self.settings = settings_from_config(cfg)
            require(
                (cfg.physics.forward_operator, cfg.physics.backward_operator) == ("fft2", "ifft2"),
                f"physics.forward_operator is {cfg.physics.forward_operator!r} and physics.backward_operator "
                f"{cfg.physics.backward_operator!r}; allowed: 'fft2' and 'ifft2'",
            )
        # What --seed set in this process; reading it changes nothing.
        self.seed = torch.initial_seed()
        self.stored_chains = PersistentChains(self.settings.objective.chains.max_stored)
        self._writer: PosteriorWriter | None = None
        self._largest_relative_gap = 0.0
        self._guard: Guard | None = None
        self._lr_scheduler: Any = None

    @property
    def energy(self) -> Energy:
        """The energy itself, out of any wrapper for parallel training."""
        energy = getattr(self.model, "module", self.model)
        assert isinstance(energy, Energy)
        return energy

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
                problem = problem_from_batch(data, self._coil_maps(data))
            if self.model.training:
                image, losses = self._train_on(data, problem)
            else:
                image, losses = self._reconstruct(data, problem), {}
        except DeepenError as error:
            # A RuntimeError makes DIRECT's training loop write a checkpoint before it ends.
            raise RuntimeError(str(error)) from error
        return DoIterationOutput(
            output_image=image.abs(),
            sensitivity_map=data["sensitivity_map"],
            data_dict=losses,
            sampling_mask=export_sampling_mask(data),
        )

    def _coil_maps(self, data: dict[str, Any]) -> torch.Tensor | None:
        if self.settings.coil_maps == "direct":
            return None
        cache = None if self.checkpointer is None else Path(self.checkpointer.save_directory) / "coil_maps"
        kspace, mask = to_complex(data["masked_kspace"]), data["sampling_mask"].squeeze(-1)
        # In the gauge of DIRECT's maps, so that an energy trained with one kind serves with the other.
        return align_phase(SenseOperator(espirit_maps_of_batch(kspace, mask, cache), mask), kspace).sensitivity_map

    def _train_on(self, data: dict[str, Any], problem: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        objective = self.settings.objective
        storage = get_event_storage()
        iteration = storage.iter
        generator = self._iteration_generator(iteration)
        if objective.random_phase > 0:
            problem = with_random_phase(problem, objective.random_phase)
        reference = reference_image(data, problem)
        updates = iteration - objective.warm_start_iterations
        if updates >= 0:
            self._ease_into_contrast(updates)
        if not self.guard.has_state:
            self.guard.remember(iteration)
        try:
            if updates < 0:
                name = "score_matching_loss"
                loss = denoising_score_matching_loss(
                    self.model,
                    reference,
                    max_noise_std=objective.warm_start_noise_std,
                    scale=objective.score_scale,
                    energy_weight=objective.warm_start_energy_weight,
                    generator=generator,
                )
                vitals = Vitals(float(loss.detach()))
            else:
                name = "contrastive_loss"
                loss, vitals = self._contrastive_loss(reference, problem, generator)
                if updates % _SPREAD_INTERVAL == 0:
                    self._log_spread(iteration, problem, generator)
            trouble = self.guard.trouble(vitals)
        except DivergenceError as error:
            loss, trouble = torch.zeros((), device=reference.device), str(error)
        trouble = self._trouble_of_any_rank(trouble)
        if trouble is None:
            self.guard.remember(iteration)
            self._scaler.scale(loss).backward()
        else:
            self._roll_back(iteration, trouble)
            loss = torch.zeros_like(loss)
        storage.add_scalar("train/rollbacks", self._rollbacks(), smoothing_hint=False)
        return problem.to_data_units(reference), {name: loss.detach()}

    @property
    def guard(self) -> Guard:
        """The guard of this training."""
        if self._guard is None:
            self._guard = Guard(self.settings.objective.guard, self.energy, self._require_optimizer())
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

    def _roll_back(self, iteration: int, trouble: str) -> None:
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
        self.stored_chains.clear()
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

    def _ease_into_contrast(self, updates: int) -> None:
        """Start the optimizer anew after the warm start, with DIRECT's warm-up of the learning rate once more.

        Adam's moments are those of another loss, with gradients of another size; without them its first steps are as
        long as the learning rate in every weight. DIRECT's scheduler sets the rate anew after every step, so that what
        is changed here holds for one.
        """
        optimizer = self._require_optimizer()
        if self.settings.objective.warm_start_iterations == 0:
            return
        if updates == 0:
            optimizer.state.clear()
            self.guard.forget()
        warmup = self.cfg.training.lr_warmup_iter
        for group in optimizer.param_groups:
            group["lr"] *= min(1.0, (updates + 1) / max(1, warmup))

    def _contrastive_loss(
        self, reference: torch.Tensor, problem: Problem, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        objective = self.settings.objective
        noise_std = self.settings.noise_std
        samples = draw_training_samples(
            problem,
            self.energy,
            noise_std=noise_std,
            noise_start_std=self.settings.noise_start_std,
            sense_regularization=self.settings.sense_regularization,
            chains=objective.chains,
            stored=self.stored_chains,
            generator=generator,
        )
        noise = complex_normal(reference.shape, generator=generator, dtype=reference.dtype, device=reference.device)
        true_images = reference + objective.data_noise_factor * noise_std * noise
        # One call of the (possibly wrapped) model, so that parallel training reduces gradients once.
        energies = self.model(torch.cat([true_images, samples.image]))
        true_energy, sample_energy = energies.chunk(2)
        self._log_contrast(float(true_energy.detach().mean()), float(sample_energy.detach().mean()), samples)
        unit = energy_unit(reference[0].numel(), noise_std)
        loss = contrastive_loss(true_energy, sample_energy, penalty=objective.energy_penalty / unit)
        gap = float((true_energy - sample_energy).detach().mean())
        # Fixed steps observe no curvature.
        vitals = Vitals(float(loss.detach()), abs(gap) / unit, float(samples.curvature.nan_to_num(0.0).max()))
        return loss, vitals

    def _log_contrast(self, true_energy: float, sample_energy: float, samples: TrainingSamples) -> None:
        gap = true_energy - sample_energy
        # DIRECT writes medians over its logging interval; the running maximum shows what a median hides.
        self._largest_relative_gap = max(self._largest_relative_gap, abs(gap) / max(true_energy, sample_energy, 1.0))
        storage = get_event_storage()
        storage.add_scalar("train/energy_true", true_energy)
        storage.add_scalar("train/energy_sample", sample_energy)
        storage.add_scalar("train/energy_gap", gap)
        storage.add_scalar("train/largest_relative_gap", self._largest_relative_gap, smoothing_hint=False)
        storage.add_scalar("train/curvature", float(samples.curvature.max()))
        storage.add_scalar("train/step_size", float(samples.step_size.mean()))

    def _log_spread(self, iteration: int, problem: Problem, generator: torch.Generator) -> None:
        """Log how far chains of the same data are apart, and warn when they fall together."""
        spread = chain_spread(
            problem.select(torch.tensor([0])),
            self.energy,
            noise_std=self.settings.noise_std,
            noise_start_std=self.settings.noise_start_std,
            num_steps=self.settings.objective.chains.noise.num_steps,
            generator=generator,
        )
        get_event_storage().add_scalar("train/chain_spread", spread, smoothing_hint=False)
        if spread < _LEAST_SPREAD:
            self.logger.warning(
                "Iteration %i: chains of the same data are %.2g ε apart; below %.2g ε the posterior collapses.",
                iteration, spread, _LEAST_SPREAD,
            )  # fmt: skip

    def _iteration_generator(self, iteration: int) -> torch.Generator:
        text = f"{self.seed}/{communication.get_rank()}/{iteration}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
        return torch.Generator(self.device).manual_seed(seed)

    def _reconstruct(self, data: dict[str, Any], problem: Problem) -> torch.Tensor:
        result = reconstruct(problem, self.energy, self.settings, seed=self.seed)
        if self._writer is not None:
            self._write_posterior(self._writer, data, problem, result.arrays)
        return result.image

    def _write_posterior(
        self, writer: PosteriorWriter, data: dict[str, Any], problem: Problem, arrays: dict[str, torch.Tensor]
    ) -> None:
        factor = data["scaling_factor"]
        for i, (name, number) in enumerate(problem.names):
            in_file_units = {
                key: (value[i] * factor[i] if key in _DATA_UNITS else value[i]).cpu().numpy()
                for key, value in arrays.items()
            }
            path = writer.add(Path(name), number, in_file_units)
            if path is not None:
                self.logger.info("Wrote posterior: %s.", path)

    def train(
        self,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        training_datasets: list[Dataset],
        experiment_directory: Path,
        *args: Any,
        resume: bool = False,
        initialization: Path | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Train as DIRECT does, with all cores, and with the persistent chains of the run that is resumed."""
        self._lr_scheduler = lr_scheduler
        with exit_on_bad_input(), all_cores(self.device):
            checkpoint = checkpoint_to_resume(Path(experiment_directory)) if resume else None
            used = checkpoint or initialization
            if used:
                require_weights_of(self.energy, used)
            super().train(
                optimizer,
                lr_scheduler,
                training_datasets,
                experiment_directory,
                *args,
                resume=resume,
                initialization=initialization,
                **kwargs,
            )

    def training_loop(self, training_datasets: list, start_iter: int, *args: Any, **kwargs: Any) -> None:
        """Run DIRECT's loop from ``start_iter``, with the chains stored for it."""
        path = self._chains_path()
        if start_iter > 0 and path.exists():
            iteration = self.stored_chains.load(path)
            self.logger.info("Read %i persistent chains of iteration %i.", len(self.stored_chains), iteration)
        super().training_loop(training_datasets, start_iter, *args, **kwargs)

    def checkpoint_model_at_interval(self, iter_idx: int, total_iter: int) -> None:
        """Write a checkpoint when DIRECT does, and this rank's persistent chains beside it."""
        super().checkpoint_model_at_interval(iter_idx, total_iter)
        steps = self.cfg.training.checkpointer.checkpoint_steps
        if len(self.stored_chains) and iter_idx >= 5 and (iter_idx % steps == 0 or iter_idx + 1 == total_iter):
            self.stored_chains.save(self._chains_path(), iter_idx)

    def _chains_path(self) -> Path:
        directory = Path(self._require_checkpointer().save_directory)
        return directory / f"persistent_chains_{communication.get_rank()}.pt"

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
        self._writer = PosteriorWriter(Path(experiment_directory), slices, self._file_attributes())
        try:
            with exit_on_bad_input(), all_cores(self.device):
                if isinstance(checkpoint, str | Path) and checkpoint != "latest":
                    require_weights_of(self.energy, checkpoint)
                return super().predict(dataset, experiment_directory, checkpoint, *args, **kwargs)
        finally:
            self._writer = None

    def _file_attributes(self) -> dict[str, str | float]:
        return {
            "direct_deepen_version": direct_deepen.__version__,
            "torch_version": str(torch.__version__),
            "noise_std": self.settings.noise_std,
            "seed": self.seed,
            "configuration": OmegaConf.to_yaml(self.cfg.model),
        }


_DATA_UNITS = ("map", "mean", "std", "std_complex", "scale")
"""Arrays in the units of the batch, which DIRECT's scaling factor takes to those of the file."""


def settings_from_config(cfg: Any) -> DeepenSettings:
    """Return the checked settings of a DIRECT configuration's model section."""
    names = DeepenSettings.__dataclass_fields__
    section = OmegaConf.create({name: cfg.model[name] for name in names})
    settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DeepenSettings), section))
    assert isinstance(settings, DeepenSettings)
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
