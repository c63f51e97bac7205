"""The calibration that stands beside a checkpoint: one scale for its posteriors, and what it was fitted to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from direct_deepen.engines.checkpoints import digest_of
from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.errors import DeepenError, require, require_positive
from direct_deepen.files import write_text

_HEADER = """\
# Written by `direct-deepen calibrate`. `direct predict` rescales the posterior samples of these weights about their
# mean by std_scale. Rename or remove this file, and it does not.
"""


@dataclass
class SamplingSettings:
    """Settings that the spread of samples depends on, as in the model section."""

    noise_std: float
    noise_start_std: float
    prior_weight: float
    num_samples: int
    num_steps: int
    keep: int
    start: str
    step_size: float | None
    preconditioner: float | None
    # Files of before there was a choice do not say.
    convolutions: str = "float32"

    @classmethod
    def of(cls, settings: DeepenSettings) -> "SamplingSettings":
        """Return those of the settings of an engine."""
        inference = settings.inference
        return cls(
            settings.noise_std, settings.noise_start_std, inference.prior_weight, inference.num_samples,
            inference.num_steps, inference.keep, inference.start, inference.step_size, inference.preconditioner,
            inference.convolutions,
        )  # fmt: skip


@dataclass
class Calibration:
    """A fitted scale.

    Attributes
    ----------
    std_scale
        s of :meth:`~direct_deepen.Posterior.rescaled`.
    level
        The nominal coverage that it was fitted for.
    coverage_before
        What intervals of that level covered on the validation data, without the scale.
    volumes
        How many volumes it was fitted to.
    slices
        How many slices.
    weights_sha256
        Of the weights, see :func:`~direct_deepen.engines.checkpoints.digest_of`.
    sampling
        How the samples were drawn.
    seed
        Of the samples.
    direct_deepen_version
        Of this package.
    torch_version
        Of PyTorch.
    """

    std_scale: float
    level: float
    coverage_before: float
    volumes: int
    slices: int
    weights_sha256: str
    sampling: SamplingSettings
    seed: int
    direct_deepen_version: str
    torch_version: str

    def require_fit_to(self, path: Path, weights: Mapping[str, torch.Tensor], settings: DeepenSettings) -> None:
        """Raise :class:`DeepenError` unless this calibration, read from ``path``, is one of these weights and settings.

        Another number of steps or chains has another spread: the scale of one does not calibrate the other. Gradients
        of another precision lead to other chains: nobody has measured that theirs is the same.
        """
        again = "run `direct-deepen calibrate` again, or remove this file to predict without it"
        require(self.weights_sha256 == digest_of(weights), f"{path}: was fitted to other weights; {again}")
        fitted, asked = asdict(self.sampling), asdict(SamplingSettings.of(settings))
        for name, value in asked.items():
            require(
                fitted[name] == value,
                f"{path}: was fitted to samples with {name} {fitted[name]!r}, this configuration has {value!r}; "
                f"{again}",
            )


def calibration_path(checkpoint: Path) -> Path:
    """Return where the calibration of a checkpoint lies: ``model_<iteration>.calibration.yaml`` beside it."""
    return checkpoint.with_suffix(".calibration.yaml")


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration; a reader never finds half a file."""
    write_text(path, _HEADER + OmegaConf.to_yaml(OmegaConf.structured(calibration)))


def read_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises
    ------
    DeepenError
        If the file is missing, is no YAML, or lacks a key or has another.
    """
    require(path.is_file(), f"{path}: no such calibration")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Calibration), OmegaConf.load(path))
        calibration = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise DeepenError(f"{path}: no calibration: {' '.join(str(error).split())}") from error
    assert isinstance(calibration, Calibration)
    require_positive(f"{path}: std_scale", calibration.std_scale)
    return calibration
