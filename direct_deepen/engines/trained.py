"""Priors that ``direct train`` has trained, for use in Python."""

import logging
from inspect import signature
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError  # type: ignore[import-untyped]

from direct_deepen import priors
from direct_deepen.engines.checkpoints import require_weights_of, weights_of
from direct_deepen.engines.plugin import config
from direct_deepen.engines.prior_engine import settings_from_config
from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.errors import DeepenError, require, require_choice
from direct_deepen.priors import Averaged, DiffusionDenoiser, Energy

_logger = logging.getLogger(__name__)

_PREFIX = "deepen.energies."
_ENERGIES = tuple(f"{_PREFIX}{name}" for name in ("QuadraticEnergy", "ConvEnergy"))
_DIFFUSIONS = ("deepen.systems.DPS",)


def load_trained(checkpoint: Path, configuration: Path) -> Energy:
    """Return the energy of a checkpoint of ``direct train``, in evaluation mode, on the CPU.

    Parameters
    ----------
    checkpoint
        ``model_<iteration>.pt``; it is read weights-only.
    configuration
        The configuration it was trained with; only its model section is read.

    Raises
    ------
    DeepenError
        If a file is missing or cannot be read, the model is no energy of this package, a key or value is not allowed,
        or the weights are those of another model.
    """
    section = _model_section(configuration, _ENERGIES)
    kind = getattr(priors, section["model_name"].removeprefix(_PREFIX))
    energy: Energy = kind(**{key: section[key] for key in signature(kind).parameters})
    require_weights_of(energy, checkpoint)
    energy.load_state_dict(weights_of(checkpoint))
    _logger.info("%s: %s, %i weights", checkpoint, kind.__name__, sum(tensor.numel() for tensor in energy.parameters()))
    return energy.eval()


def load_settings(configuration: Path) -> DeepenSettings:
    """Return what the engine of DEEPEN reads from the model section of a configuration, checked.

    Errors are those of :func:`load_trained`.
    """
    section = _model_section(configuration, _ENERGIES)
    return settings_from_config(OmegaConf.create({"model": section}), DeepenSettings)


def load_denoiser(checkpoint: Path, configuration: Path) -> DiffusionDenoiser:
    """Return the network of a diffusion that ``direct train`` has trained (DPS), with averaged weights, on the CPU.

    Parameters and errors are those of :func:`load_trained`.
    """
    section = _model_section(configuration, _DIFFUSIONS)
    network = DiffusionDenoiser(**{key: section[key] for key in signature(DiffusionDenoiser).parameters})
    averaged = Averaged(network, section["average_decay"])
    holder = nn.ModuleDict({"averaged": averaged})
    require_weights_of(holder, checkpoint)
    holder.load_state_dict(weights_of(checkpoint))
    assert isinstance(averaged.average, DiffusionDenoiser)
    return averaged.average.eval()


def _model_section(configuration: Path, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Return the model section of a configuration of one of some models, with defaults for keys that are left out."""
    require(configuration.is_file(), f"{configuration}: no such configuration file")
    try:
        section = OmegaConf.load(configuration).model
        require_choice("model.model_name", section.model_name, allowed)
        name = section.model_name.rpartition(".")[2]
        settings = OmegaConf.merge(OmegaConf.structured(getattr(config, f"{name}Config")), section)
    except (OmegaConfBaseException, AttributeError, UnicodeDecodeError, YAMLError) as error:
        raise DeepenError(f"{configuration}: model: {str(error).splitlines()[0]}") from error
    arguments = OmegaConf.to_container(settings)
    assert isinstance(arguments, dict)
    return {str(key): value for key, value in arguments.items()}
