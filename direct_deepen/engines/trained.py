"""Priors that ``direct train`` has trained, for use in Python."""

import logging
from pathlib import Path
from typing import Any

from direct.environment import load_model_config_from_name, load_model_from_name
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError  # type: ignore[import-untyped]

from direct_deepen.engines.checkpoints import require_weights_of, weights_of
from direct_deepen.engines.models import DiffusionDenoiser, plain_value
from direct_deepen.engines.settings import System, system_of
from direct_deepen.errors import DeepenError, require

_logger = logging.getLogger(__name__)


def load_prior(checkpoint: Path, configuration: Path) -> nn.Module:
    """Return the prior of a checkpoint of ``direct train``, in evaluation mode, on the CPU.

    Parameters
    ----------
    checkpoint
        ``model_<iteration>.pt``; it is read weights-only.
    configuration
        The configuration it was trained with; only its model section is read.

    Raises
    ------
    DeepenError
        If a file is missing or cannot be read, the model is none of this package, a key or value is not allowed, or
        the weights are those of another model.
    """
    section = _model_section(configuration)
    kind = load_model_from_name(section["model_name"])
    prior: nn.Module = kind.of(section)
    require_weights_of(prior, checkpoint)
    prior.load_state_dict(weights_of(checkpoint))
    _logger.info("%s: %s, %i weights", checkpoint, kind.__name__, sum(tensor.numel() for tensor in prior.parameters()))
    return prior.eval()


def load_trained(checkpoint: Path, configuration: Path) -> Any:
    """Return the energy of a checkpoint of ``direct train``; arguments and errors are those of :func:`load_prior`.

    Returns
    -------
    Anything with ``value_and_grad``: an energy of this package, or one of another that ``model.prior`` names.
    """
    prior = load_prior(checkpoint, configuration)
    require(
        hasattr(prior, "value_and_grad"),
        f"{configuration}: model.model_name is a {type(prior).__name__}, which is no energy; allowed: a prior with "
        "value_and_grad",
    )
    return prior


def load_system(configuration: Path) -> System:
    """Return what the model section of a configuration says, checked; errors are those of :func:`load_prior`."""
    return system_of(_model_section(configuration))


def load_denoiser(checkpoint: Path, configuration: Path) -> nn.Module:
    """Return the network of a diffusion that ``direct train`` has trained, with averaged weights.

    Parameters and errors are those of :func:`load_prior`.
    """
    prior = load_prior(checkpoint, configuration)
    require(
        isinstance(prior, DiffusionDenoiser),
        f"{configuration}: model.model_name is a {type(prior).__name__}; allowed: deepen.priors.DiffusionDenoiser",
    )
    average = prior.get_submodule("averaged.average")
    return average.eval()


def _model_section(configuration: Path) -> dict[str, Any]:
    """Return the model section of a configuration, with defaults for keys that are left out."""
    require(configuration.is_file(), f"{configuration}: no such configuration file")
    try:
        section = OmegaConf.load(configuration).model
        name = str(section.model_name)
        require(name.startswith("deepen."), f"model_name is {name!r}; allowed: deepen.priors.<Class>")
        settings = OmegaConf.merge(OmegaConf.structured(load_model_config_from_name(name)), section)
    except (OmegaConfBaseException, AttributeError, UnicodeDecodeError, YAMLError, DeepenError) as error:
        raise DeepenError(f"{configuration}: model: {str(error).splitlines()[0]}") from error
    except SystemExit as error:
        # DIRECT ends the process where it finds no model of a name.
        raise DeepenError(f"{configuration}: model.model_name is {name!r}: no such model") from error
    return {str(key): plain_value(settings[key]) for key in settings}
