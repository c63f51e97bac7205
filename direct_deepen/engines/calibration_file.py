"""The calibration that stands beside a checkpoint: factors of its posteriors, and what they were fitted to."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from direct_deepen.engines.checkpoints import digest_of, weights_of
from direct_deepen.engines.configuration import read_yaml
from direct_deepen.errors import DeepenError, require, require_positive
from direct_deepen.files import write_text
from direct_deepen.inference import Sampler
from direct_deepen.posterior.posterior import Posterior

_logger = logging.getLogger(__name__)

_HEADER = """\
# Written by `direct-deepen calibrate`. `direct predict` rescales the posterior samples of these weights about their
# mean by std_scale, and their k-space ring by ring by ring_scales. Rename or remove this file, and it does not.
"""


@dataclass
class Calibration:
    """Fitted factors, and how the samples that they were fitted to were drawn."""

    std_scale: float
    """s of :meth:`~direct_deepen.Posterior.rescaled`."""
    level: float
    coverage_before: float
    """Coverage of intervals of the nominal ``level`` in the validation data, without the scale."""
    volumes: int
    slices: int
    weights_sha256: str
    """See :func:`~direct_deepen.engines.checkpoints.digest_of`."""
    sampling: dict[str, Any]
    """Settings of the inference by key."""
    seed: int
    direct_deepen_version: str
    torch_version: str
    ring_scales: list[float] = field(default_factory=list)
    """Of the same; empty in files of before there were any."""
    guaranteed_scale: float | None = None
    """How much wider than those of the samples as they were drawn, without factors, intervals of the nominal level are
    to be for a guarantee: :func:`~direct_deepen.posterior.calibration.controlled_scale`. Null for too few volumes."""

    def corrected(self, posterior: Posterior) -> Posterior:
        """Return a posterior with what was fitted."""
        return posterior.rescaled(self.std_scale, self.ring_scales)

    def require_fit_to(self, path: Path, weights: Mapping[str, torch.Tensor], inference: Sampler) -> None:
        """Raise :class:`DeepenError` unless this calibration, read from ``path``, is one of these weights and settings.

        Another number of steps or chains has another spread: the scale of one does not calibrate the other. Gradients
        of another precision lead to other chains: nobody has measured that theirs is the same. Of what a file of an
        earlier version does not say, nothing is asked.
        """
        again = "run `direct-deepen calibrate` again, or remove this file to predict without it"
        require(self.weights_sha256 == digest_of(weights), f"{path}: was fitted to other weights; {again}")
        asked = inference.sampling()
        for name, value in self.sampling.items():
            require(
                name in asked and value == asked[name],
                f"{path}: was fitted to samples with {name} {value!r}, this configuration has {asked.get(name)!r}; "
                f"{again}",
            )


def calibration_path(checkpoint: Path) -> Path:
    """Return where the calibration of a checkpoint lies: ``model_<iteration>.calibration.yaml`` beside it."""
    return checkpoint.with_suffix(".calibration.yaml")


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration; a reader never finds half a file."""
    write_text(path, _HEADER + OmegaConf.to_yaml(OmegaConf.structured(calibration)))


def read_calibration(path: Path) -> Calibration:
    """Read a calibration; a :class:`DeepenError` says what a file is that is none."""
    content = read_yaml(path)
    try:
        calibration = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Calibration), content))
    except OmegaConfBaseException as error:
        raise DeepenError(f"{path}: no calibration: {' '.join(str(error).split())}") from error
    assert isinstance(calibration, Calibration)
    require_positive(f"{path}: std_scale", calibration.std_scale)
    for scale in calibration.ring_scales:
        require_positive(f"{path}: ring_scales", scale)
    if "preconditioner" in calibration.sampling:
        # Langevin chains of before there was a choice of precision, and of noise.
        calibration.sampling.setdefault("convolutions", "float32")
        calibration.sampling.setdefault("averaged_noise", False)
        calibration.sampling.setdefault("momentum", 0.0)
        calibration.sampling.setdefault("antithetic", False)
    return calibration


def fitted_calibration(checkpoint: Path, inference: Sampler) -> Calibration | None:
    """Return what ``direct-deepen calibrate`` left beside a checkpoint for this inference; None for nothing."""
    path = calibration_path(checkpoint)
    if not path.is_file():
        return None
    calibration = read_calibration(path)
    calibration.require_fit_to(path, weights_of(checkpoint), inference)
    _logger.info("Posteriors are rescaled by %.4g, as %s says.", calibration.std_scale, path)
    return calibration
