"""Priors that ``direct train`` has trained, for use in Python."""

import logging
from pathlib import Path
from typing import Any

from direct.environment import load_model_from_name
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from direct_deepen.data.cases import intensity_scale_of
from direct_deepen.engines.checkpoints import (
    TRAINED_WITH,
    require_trained_with,
    require_weights_of,
    weights_of,
    write_tensors,
)
from direct_deepen.engines.configuration import keys_of_model, read_yaml
from direct_deepen.engines.models import DiffusionDenoiser
from direct_deepen.engines.settings import INSTEAD, System, plain, system_of
from direct_deepen.errors import DeepenError, first_line, require
from direct_deepen.physics.scale import FIELD_OF_VIEW
from direct_deepen.priors import depends_on_noise
from direct_deepen.priors.pretrained import available_pretrained, load_pretrained, pretrained_provenance

_logger = logging.getLogger(__name__)


def load_prior(checkpoint: Path, configuration: Path) -> nn.Module:
    """Return the prior of a checkpoint of ``direct train``, in evaluation mode, on the CPU.

    Of ``model_<iteration>.pt`` only weights are read, of the configuration it was trained with the model section.

    Raises
    ------
    DeepenError
        If a file is missing or cannot be read, the model is none of this package, a key or value is not allowed, or
        the weights are those of another model.
    """
    section = _model_section(configuration)
    kind = load_model_from_name(section["model_name"])
    prior = kind.of(section)
    require_weights_of(prior, checkpoint)
    require_trained_with(checkpoint, load_system(configuration).settings.meaning(), INSTEAD)
    prior.load_state_dict(weights_of(checkpoint))
    _logger.info("%s: %s, %i weights", checkpoint, kind.__name__, sum(tensor.numel() for tensor in prior.parameters()))
    return prior.eval()


def load_trained(checkpoint: Path, configuration: Path) -> Any:
    """Return the energy of a checkpoint: anything with ``value_and_grad``, also what ``model.prior`` names.

    A prior of all noise levels gives that of ``model.noise_std``.

    Arguments and errors are those of :func:`load_prior`.
    """
    prior = load_prior(checkpoint, configuration)
    noise_std = float(load_system(configuration).settings.noise_std)
    if depends_on_noise(prior):
        return prior.at_noise(noise_std)
    require(
        hasattr(prior, "value_and_grad"),
        f"{configuration}: model.model_name is a {type(prior).__name__}, which is no energy; allowed: a prior with "
        "value_and_grad",
    )
    energy: Any = prior
    energy.prior_noise_std = noise_std
    return energy


def pretrained_for(configuration: Path) -> Any:
    """Return the prior that comes with the package, for the model and the scale of intensities of a configuration.

    A configuration without a model may have either. A :class:`DeepenError` has those that there are.
    """
    content = read_yaml(configuration)
    model = OmegaConf.select(content, "model.model_name")
    scale = intensity_scale_of(configuration)
    known = {}
    for name in available_pretrained():
        provenance = pretrained_provenance(name)
        kind, its_scale = f"deepen.priors.{provenance['energy']}", provenance.get("intensity_scale", FIELD_OF_VIEW)
        if scale == its_scale and model in (None, kind):
            prior = load_pretrained(name)
            prior.border = OmegaConf.select(content, "model.border") or prior.border
            return prior
        known[name] = f"{kind} with {its_scale} ({name})"
    raise DeepenError(
        f"{configuration}: model.model_name is {model!r} and model.intensity_scale is {scale!r}; allowed with the "
        f"weights that come with the package: {'; '.join(known.values())}"
    )


def write_pretrained(configuration: Path, path: Path) -> None:
    """Write the weights of :func:`pretrained_for` as a checkpoint that ``direct predict`` reads."""
    section = _model_section(configuration)
    prior = load_model_from_name(section["model_name"]).of(section)
    weights = pretrained_for(configuration).state_dict()
    parts = [prior.averaged.module, prior.averaged.average] if hasattr(prior, "averaged") else [prior]
    try:
        for part in parts:
            part.load_state_dict(weights)
    except RuntimeError as error:
        raise DeepenError(f"{configuration}: the weights that come with the package are of another network") from error
    meaning = load_system(configuration).settings.meaning()
    write_tensors(path, {"model": prior.state_dict(), TRAINED_WITH: meaning})


def load_system(configuration: Path) -> System:
    """Return what the model section of a configuration says, checked; errors are those of :func:`load_prior`."""
    section = _model_section(configuration)
    try:
        return system_of(section)
    except DeepenError as error:
        raise DeepenError(f"{configuration}: {error}") from error


def load_denoiser(checkpoint: Path, configuration: Path) -> nn.Module:
    """Return the network of a trained diffusion, with averaged weights; arguments are those of :func:`load_prior`."""
    prior = load_prior(checkpoint, configuration)
    require(
        isinstance(prior, DiffusionDenoiser),
        f"{configuration}: model.model_name is a {type(prior).__name__}; allowed: deepen.priors.DiffusionDenoiser",
    )
    return prior.get_submodule("averaged.average").eval()


def _model_section(configuration: Path) -> dict[str, Any]:
    """Return the model section of a configuration, with defaults for keys that are left out."""
    content = read_yaml(configuration)
    try:
        name = str(OmegaConf.select(content, "model.model_name"))
        require(name.startswith("deepen."), f"model_name is {name!r}; allowed: deepen.priors.<Class>")
        return plain(OmegaConf.merge(OmegaConf.structured(keys_of_model(name)), content.model))
    except (OmegaConfBaseException, DeepenError) as error:
        raise DeepenError(f"{configuration}: model: {first_line(error)}") from error
