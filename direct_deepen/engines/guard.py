"""The guard of training: it remembers good states and goes back to them when an update shows trouble."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from direct_deepen.objectives import Loss
from direct_deepen.objectives.base import GuardSettings

_REMEMBERED = 2
"""States kept: the newest may already be on its way into trouble, so the guard goes back to the oldest."""


class Guard:
    """Remembers weights and optimizer of the last good updates, and puts them back on trouble."""

    def __init__(self, settings: GuardSettings, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.settings = settings
        self._model = model
        self._optimizer = optimizer
        self._states: list[tuple[int, dict[str, Any], dict[str, Any]]] = []

    @property
    def has_state(self) -> bool:
        """Whether there is a state to go back to."""
        return bool(self._states)

    def trouble(self, loss: Loss) -> str | None:
        """Say what is wrong with an update, or None; NaN and infinity always are."""
        limits = {
            "loss": (abs(float(loss.value.detach())), float("inf")),
            "|E+ - E-|/E0": (loss.gap, self.settings.max_gap),
            "curvature": (loss.curvature, self.settings.max_curvature),
        }
        # NaN compares false, so that it is over every limit; infinity is over the limit of the loss.
        over = [f"{name} is {value:.4g}" for name, (value, limit) in limits.items() if not value < limit]
        return ", ".join(over) or None

    def remember(self, iteration: int) -> None:
        """Keep a copy of the state before the update of ``iteration``, if the last one is old enough."""
        if not self._states or iteration >= self._states[-1][0] + self.settings.interval:
            state = copy.deepcopy((self._model.state_dict(), self._optimizer.state_dict()))
            self._states = [*self._states, (iteration, *state)][-_REMEMBERED:]

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered."""
        return {"states": [list(state) for state in self._states]}

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Remember what :meth:`state_dict` returned."""
        self._states = [(iteration, weights, optimizer) for iteration, weights, optimizer in content["states"]]

    def forget(self) -> None:
        """Drop what is remembered: it belongs to another phase of training."""
        self._states = []

    def roll_back(self) -> int:
        """Put the oldest remembered state back, forget the newer one, and return the iteration it was kept at."""
        self._states = self._states[:1]
        iteration, weights, optimizer = self._states[0]
        self._model.load_state_dict(weights)
        # The optimizer takes over the tensors it is given.
        self._optimizer.load_state_dict(copy.deepcopy(optimizer))
        return iteration
