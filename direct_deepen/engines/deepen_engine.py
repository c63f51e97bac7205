"""The engine of DEEPEN: training by maximum likelihood, MAP and posterior samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from direct.utils.events import get_event_storage
from torch.utils.data import Dataset

from direct_deepen.engines.calibration_file import calibration_path, read_calibration
from direct_deepen.engines.checkpoints import weights_of
from direct_deepen.engines.guard import Vitals
from direct_deepen.engines.persistent_chains import PersistentChains
from direct_deepen.engines.prior_engine import PriorEngine
from direct_deepen.engines.reconstruction import Reconstruction, posterior_attributes, reconstruct
from direct_deepen.engines.reporting import exit_on_bad_input
from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.engines.training_samples import TrainingSamples, chain_spread, draw_training_samples
from direct_deepen.objectives import contrastive_loss, denoising_score_matching_loss, energy_unit
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.problem import Problem
from direct_deepen.posterior.posterior_file import FileAttributes
from direct_deepen.priors.energy import Energy

_SPREAD_INTERVAL = 50
_LEAST_SPREAD = 0.25
"""In ε. A chain of unit step has at least ε, whatever the energy; less needs a curvature that shrinks the step."""


_FEWEST_VISITS = 3
"""Of a slice, in the contrastive phase: a chain that is taken up twice has three times the steps."""


class DeepenEngine(PriorEngine[DeepenSettings]):
    """Train an energy by maximum likelihood and reconstruct with it.

    Training iterations first match scores (warm start), then lower the energy of true images and raise that of samples.
    Validation and prediction return the MAP image or the posterior mean, as ``model.inference.estimator`` says;
    prediction also writes posterior files beside DIRECT's reconstructions, volume by volume.
    """

    settings_type = DeepenSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored_chains = PersistentChains(self.settings.objective.chains.max_stored)
        self._largest_relative_gap = 0.0
        self._std_scale: float | None = None

    @property
    def energy(self) -> Energy:
        """The energy itself, out of any wrapper for parallel training."""
        assert isinstance(self.prior, Energy)
        return self.prior

    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Return the MAP image or the posterior mean."""
        return reconstruct(problem, self.energy, self.settings, seed=self.seed, std_scale=self._std_scale)

    def predict(
        self,
        dataset: Dataset,
        experiment_directory: Path,
        checkpoint: int | str | Path | None = -1,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Predict as every engine does, with posteriors rescaled as the calibration beside the checkpoint says."""
        with exit_on_bad_input():
            self._std_scale = self._fitted_scale(checkpoint)
        try:
            return super().predict(dataset, experiment_directory, checkpoint, *args, **kwargs)
        finally:
            self._std_scale = None

    def _fitted_scale(self, checkpoint: int | str | Path | None) -> float | None:
        """Return the scale that ``direct-deepen calibrate`` left beside a checkpoint; None where there is none."""
        if self.settings.inference.estimator == "map" or not isinstance(checkpoint, str | Path):
            return None
        path = calibration_path(Path(checkpoint))
        if not path.is_file():
            return None
        calibration = read_calibration(path)
        calibration.require_fit_to(path, weights_of(Path(checkpoint)), self.settings)
        self.logger.info("Posteriors are rescaled by %.4g, as %s says.", calibration.std_scale, path)
        return calibration.std_scale

    def training_loop(self, training_datasets: list, start_iter: int, *args: Any, **kwargs: Any) -> None:
        """Run DIRECT's loop as every engine does; say so where chains cannot persist."""
        self._warn_of_forgotten_chains(sum(len(dataset) for dataset in training_datasets))
        super().training_loop(training_datasets, start_iter, *args, **kwargs)

    def _warn_of_forgotten_chains(self, slices: int) -> None:
        chains, training = self.settings.objective.chains, self.cfg.training
        updates = training.num_iterations - self.settings.objective.warm_start_iterations
        # Each process keeps the chains of the slices that it comes upon.
        visits = updates * training.batch_size / max(1, slices)
        if updates > 0 and chains.persistent.fraction > 0 and (slices > chains.max_stored or visits < _FEWEST_VISITS):
            self.logger.warning(
                "Persistent chains: %i slices, each of which comes %.2g times in a process, and places for %i chains. "
                "Most chains will begin at SENSE; train on fewer slices, or longer, and raise "
                "model.objective.chains.max_stored above the number of slices.",
                slices, visits, chains.max_stored,
            )  # fmt: skip

    def loss_name(self, iteration: int) -> str:
        """Return the name of the phase's loss."""
        return "score_matching_loss" if self._updates(iteration) < 0 else "contrastive_loss"

    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Return the loss of score matching, or the contrastive one."""
        objective, updates = self.settings.objective, self._updates(iteration)
        if updates < 0:
            loss = denoising_score_matching_loss(
                self.model,
                reference,
                max_noise_std=objective.warm_start_noise_std,
                scale=objective.score_scale,
                energy_weight=objective.warm_start_energy_weight,
                generator=generator,
            )
            return loss, Vitals(float(loss.detach()))
        result = self._contrastive_loss(reference, problem, generator)
        if updates % _SPREAD_INTERVAL == 0:
            self._log_spread(iteration, problem, generator)
        return result

    def _updates(self, iteration: int) -> int:
        """Contrastive updates before this iteration; negative in the warm start."""
        return iteration - self.settings.objective.warm_start_iterations

    def before_update(self, iteration: int) -> None:
        """Start the optimizer anew after the warm start, with DIRECT's warm-up of the learning rate once more.

        Adam's moments are those of another loss, with gradients of another size; without them its first steps are as
        long as the learning rate in every weight. DIRECT's scheduler sets the rate anew after every step, so that what
        is changed here holds for one.
        """
        updates = self._updates(iteration)
        if updates < 0 or self.settings.objective.warm_start_iterations == 0:
            return
        optimizer = self._require_optimizer()
        if updates == 0:
            optimizer.state.clear()
            self.guard.forget()
        warmup = self.cfg.training.lr_warmup_iter
        for group in optimizer.param_groups:
            group["lr"] *= min(1.0, (updates + 1) / max(1, warmup))

    def roll_back(self, iteration: int, trouble: str) -> None:
        """Go back as every engine does, and begin all chains anew: the state they come from is gone."""
        super().roll_back(iteration, trouble)
        self.stored_chains.clear()

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
        noise = complex_normal_like(reference, generator=generator)
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

    def training_state(self) -> dict[str, Any]:
        """Return what every engine does, and the chains."""
        chains = {"chains": self.stored_chains.state_dict(), "largest_relative_gap": self._largest_relative_gap}
        return super().training_state() | chains

    def restore_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on as every engine does, and with the chains."""
        super().restore_training_state(state)
        self.stored_chains.load_state_dict(state["chains"])
        self._largest_relative_gap = float(state["largest_relative_gap"])
        self.logger.info("Read %i persistent chains.", len(self.stored_chains))

    def _file_attributes(self) -> FileAttributes:
        inference = self.settings.inference
        attributes = super()._file_attributes() | {"noise_std": self.settings.noise_std}
        if inference.estimator == "map":
            return attributes
        chains = {"num_steps": inference.num_steps, "keep": inference.keep}
        calibration = {"calibrated": self._std_scale is not None, "std_scale": self._std_scale or 1.0}
        return attributes | posterior_attributes(inference) | chains | calibration
