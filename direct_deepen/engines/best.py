"""The best checkpoint of a training by a metric of validation, and when training ends for want of a better one."""

import json
from pathlib import Path

from direct_deepen.errors import DeepenError
from direct_deepen.files import write_text
from direct_deepen.objectives.base import BestSettings

BEST = "model_best"
"""Stem of the checkpoint, and of the values it was chosen by."""


class BestCheckpoint:
    """Values of the metric by iteration; those before ``start``, where a training is resumed, from its folder."""

    def __init__(self, settings: BestSettings, run: Path, start: int) -> None:
        self._settings = settings
        self._path = run / f"{BEST}.json"
        self._values: dict[int, float] = {}
        if start > 0 and self._path.is_file():
            try:
                values = json.loads(self._path.read_text(encoding="utf-8"))[settings.metric]
                self._values = {int(key): float(value) for key, value in values.items() if int(key) < start}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DeepenError(
                    f"{self._path}: no values of {settings.metric} by iteration; delete it to choose anew"
                ) from error

    def add(self, iteration: int, value: float) -> bool:
        """Note a value, and return whether it is the best; NaN never is."""
        before = self._best()
        self._values[iteration] = value
        return self._best() == iteration != before

    def write(self) -> None:
        """Write the values."""
        write_text(self._path, json.dumps({self._settings.metric: self._values}))

    @property
    def is_last(self) -> bool:
        """Whether as many validations as ``patience`` came after the best one."""
        later = [iteration for iteration in self._values if iteration > (self._best() or 0)]
        return 0 < self._settings.patience <= len(later)

    def _best(self) -> int | None:
        sign = -1.0 if self._settings.lower_is_better else 1.0
        # Of equal ones the first.
        known = [(sign * value, -iteration) for iteration, value in self._values.items() if value == value]
        return -max(known)[1] if known else None
