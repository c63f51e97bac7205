"""Reading what ``direct predict`` wrote: reconstructions, posterior files, times and parameters."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from direct_deepen.engines.checkpoints import weights_of
from direct_deepen.errors import require
from direct_deepen.posterior.posterior_file import open_output, posterior_path, read_posterior

_TIME = re.compile(r"\(shape = \[(\d+),.*\) in ([0-9.]+)s\.")


@dataclass(frozen=True)
class Prediction:
    """The output folder of a ``direct predict`` run, and the checkpoint it used.

    Attributes
    ----------
    directory
        The output folder.
    checkpoint
        The weights.
    """

    directory: Path
    checkpoint: Path

    def __post_init__(self) -> None:
        require(self.directory.is_dir(), f"{self.directory}: no such folder; run `direct predict` first")
        require(self.checkpoint.is_file(), f"{self.checkpoint}: no such checkpoint")

    @cached_property
    def parameters(self) -> int:
        """Number of weights of the model."""
        return sum(tensor.numel() for tensor in weights_of(self.checkpoint).values())

    @cached_property
    def seconds(self) -> float:
        """Seconds a slice, reading the data included, by DIRECT's own log of the last run."""
        log = self.directory / "log_0_0.txt"
        found = _TIME.findall(log.read_text(encoding="utf-8")) if log.is_file() else []
        if not found:
            return float("nan")
        # The log gives the time since the start of the run after every volume, so a shorter time starts a new run.
        last_run: list[tuple[int, float]] = []
        for slices, seconds in ((int(s), float(t)) for s, t in found):
            if last_run and seconds < last_run[-1][1]:
                last_run.clear()
            last_run.append((slices, seconds))
        return last_run[-1][1] / sum(slices for slices, _ in last_run)

    def reconstruction(self, volume: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return magnitudes (slice, height, width) of a volume, and its sampling masks if DIRECT wrote them."""
        path = self.directory / volume
        require(path.is_file(), f"{path}: no reconstruction of {volume}")
        with open_output(path) as file:
            arrays = {name: dataset[()] for name, dataset in file.items()}
        require("reconstruction" in arrays, f"{path}: holds no `reconstruction`")
        return arrays["reconstruction"], arrays.get("sampling_mask")

    def posterior(self, volume: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of a volume's posterior file but the samples, or None where there is none."""
        path = posterior_path(self.directory, Path(volume))
        return read_posterior(path).arrays if path.is_file() else None
