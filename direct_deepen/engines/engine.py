"""The engine: DIRECT's loops on one side, a prior, an objective and an inference on the other."""

from collections.abc import Callable
from typing import Any

import torch
from direct.engine import DoIterationOutput
from direct.nn.adaptive.utils import export_sampling_mask
from direct.utils import communication, dict_to_device
from direct.utils.events import get_event_storage
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from direct_deepen.data.batch import reference_image
from direct_deepen.data.convention import convention_of, in_standard_convention
from direct_deepen.data.direct_options import require_served
from direct_deepen.data.random_phase import with_random_phase
from direct_deepen.engines.commands import (
    bad_input_told,
    calling_command,
    end_command_on_interrupt,
    leave_out_results,
    process_seed,
)
from direct_deepen.engines.reconstruction import named_generator
from direct_deepen.engines.settings import EngineSettings, plain, system_of
from direct_deepen.engines.trained import load_denoiser
from direct_deepen.engines.training import Training
from direct_deepen.errors import DeepenError, DivergenceError, first_line, require
from direct_deepen.objectives import Loss, Update
from direct_deepen.physics.problem import Problem


class _BadBatchError(DeepenError, RuntimeError):
    """As a :class:`RuntimeError` it makes DIRECT's training loop write a checkpoint before it ends."""


class DeepenEngine(Training):
    """Train a prior by the ``objective``, and reconstruct by the ``inference``, that the configuration names.

    The random numbers of an iteration come from a generator seeded by DIRECT's ``--seed``, the rank and the iteration.
    A resumed run goes on in the state, and with the order of samples, of the interrupted one: it becomes what that
    would have become. A guard takes training back to its last good state when an update shows trouble.

    Bad settings and data end DIRECT's commands with one line in the log and exit code 2; training writes a checkpoint
    first. Elsewhere they are a :class:`DeepenError`.
    """

    def __init__(self, cfg: Any, *args: Any, **kwargs: Any) -> None:
        mixed = kwargs.pop("mixed_precision", False)
        super().__init__(cfg, *args, **kwargs)
        if mixed:
            self.logger.warning("--mixed-precision has no effect: all is computed in single precision.")
        with bad_input_told():
            self._use(plain(cfg.model))
            leave_out_results(cfg)
            self.convention = convention_of(cfg.physics.forward_operator, cfg.physics.backward_operator)
            require_served(cfg, calling_command())
        self.seed = process_seed()
        self._energy = {}

    def _Engine__bind_sigint_signal(self) -> None:  # noqa: N802
        """In place of DIRECT's handler, which leaves a checkpoint in the middle of an update, or a traceback."""
        end_command_on_interrupt()

    def _use(self, section: dict[str, Any]) -> None:
        self._section = section
        system = system_of(section)
        self.settings, self.objective, self.inference = system.settings, system.objective, system.inference

    def configure(self, key: str, value: Any) -> None:
        """Change a setting, such as ``inference.prior_weight``, as if the configuration had it; errors are the same."""
        # The others are of a network that is built already.
        allowed = list(EngineSettings.__dataclass_fields__)
        require(key.partition(".")[0] in allowed, f"model.{key}: no such setting; allowed: {', '.join(allowed)}")
        section = OmegaConf.create(self._section)
        try:
            OmegaConf.update(section, key, value)
            changed = plain(section)
        except OmegaConfBaseException as error:
            raise DeepenError(f"model.{key} is {value!r}: {first_line(error)}; allowed: a value of its type") from error
        self._use(changed)

    def build_metrics(self, metrics_list: Any) -> dict[str, Callable]:
        """Return DIRECT's metrics of these names; a :class:`DeepenError` names one that it has not."""
        try:
            return super().build_metrics(metrics_list)
        except AttributeError as error:
            raise DeepenError(f"metrics are {list(metrics_list)!r}; allowed: those of DIRECT ({error})") from error

    def build_loss(self) -> dict:
        """Return no losses: the objective has its own."""
        return {}

    def _do_iteration(self, data: dict[str, Any], *_: Any, **__: Any) -> DoIterationOutput:
        data = dict_to_device(data, self.device)
        try:
            if self.model.training:
                image, losses = self._train_on(data, self._problem(data))
            else:
                image, losses = self._reconstruct(data), {}
        except DeepenError as error:
            raise _BadBatchError(str(error)) from error
        return DoIterationOutput(
            output_image=image.abs(),
            sensitivity_map=data["sensitivity_map"],
            data_dict=losses,
            sampling_mask=export_sampling_mask(data),
        )

    def _train_on(self, data: dict[str, Any], problem: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        iteration = get_event_storage().iter
        if self.objective.random_phase > 0:
            problem = with_random_phase(problem, self.objective.random_phase)
        reference = reference_image(in_standard_convention(data, self.convention), problem)
        self.before_update(iteration)
        try:
            generator = self._iteration_generator(iteration)
            loss = self.objective.loss(
                Update(self.model, self.prior, self.inference, reference, problem, iteration, generator, load_denoiser)
            )
            trouble = self.guard.trouble(loss)
        except DivergenceError as error:
            loss, trouble = Loss(torch.zeros((), device=reference.device), "diverged_loss"), str(error)
        value = self.update(iteration, loss, trouble)
        if trouble is None:
            self.remember_energy(iteration, reference)
        return problem.to_data_units(reference), {loss.name: value}

    def _iteration_generator(self, iteration: int) -> torch.Generator:
        return named_generator(self.seed, (str(communication.get_rank()), iteration), self.device)
