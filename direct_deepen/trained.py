"""Energies that ``direct train`` has trained, for use in Python."""

from inspect import signature
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from direct_deepen import priors
from direct_deepen.engines.checkpoints import require_weights_of, weights_of
from direct_deepen.errors import DeepenError, require, require_choice
from direct_deepen.plugin import config
from direct_deepen.priors import Energy

_PREFIX = "deepen.energies."
_NAMES = tuple(f"{_PREFIX}{name}" for name in ("QuadraticEnergy", "ConvEnergy"))


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
    require(configuration.is_file(), f"{configuration}: no such configuration file")
    try:
        section = OmegaConf.load(configuration).model
        require_choice("model.model_name", section.model_name, _NAMES)
        name = section.model_name.removeprefix(_PREFIX)
        settings = OmegaConf.merge(OmegaConf.structured(getattr(config, f"{name}Config")), section)
    except (OmegaConfBaseException, AttributeError, YAMLError) as error:
        raise DeepenError(f"{configuration}: model: {str(error).splitlines()[0]}") from error
    kind = getattr(priors, name)
    arguments = OmegaConf.to_container(settings)
    assert isinstance(arguments, dict)
    energy: Energy = kind(**{key: arguments[key] for key in signature(kind).parameters})
    require_weights_of(energy, checkpoint)
    energy.load_state_dict(weights_of(checkpoint))
    return energy.eval()
