"""The model section of a configuration as checked settings: what all systems share, an objective, an inference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from direct_deepen.data.coil_maps import COIL_MAPS
from direct_deepen.errors import DeepenError
from direct_deepen.inference import Inference, inferences
from direct_deepen.objectives import Objective, objectives
from direct_deepen.parts import Part, Registry, SharedSettings, check_settings, setting


@dataclass
class EngineSettings(SharedSettings):
    """What the engine reads from the model section, whatever the system.

    Attributes
    ----------
    coil_maps
        ``direct``: as DIRECT's transforms estimate them. ``espirit``: by sigpy, from the fully sampled centre of the
        masked k-space, cached on disk.
    objective
        Training: ``name``, and the settings of the objective of that name.
    inference
        Reconstruction: ``name``, and the settings of the inference of that name.
    """

    coil_maps: str = setting("direct", choices=COIL_MAPS)
    objective: dict[str, Any] = field(default_factory=lambda: {"name": "contrastive"})
    inference: dict[str, Any] = field(default_factory=lambda: {"name": "map"})


@dataclass(frozen=True)
class System:
    """What a model section says: settings, and the parts that they choose."""

    settings: EngineSettings
    objective: Objective
    inference: Inference


def system_of(section: Mapping[str, Any]) -> System:
    """Return what a model section says, with all of it checked.

    Raises
    ------
    DeepenError
        If a part or a key is unknown, or a value is not allowed; the message has the whole key.
    """
    known = {key: section[key] for key in EngineSettings.__dataclass_fields__ if key in section}
    settings = _structured(EngineSettings, known, "model")
    check_settings(settings, "model")
    shared = SharedSettings(**{key: getattr(settings, key) for key in SharedSettings.__dataclass_fields__})
    return System(
        settings,
        _part(objectives, settings.objective, "contrastive", shared),
        _part(inferences, settings.inference, "map", shared),
    )


def _part[Kind: Part](
    registry: Registry[Kind], section: Mapping[str, Any], default: str, shared: SharedSettings
) -> Kind:
    path = f"model.{registry.kind}"
    values = dict(section)
    part = _structured(registry.find(str(values.pop("name", default))), values, path)
    part.shared = shared
    check_settings(part, path)
    return part


def _structured[Settings](kind: type[Settings], values: Mapping[str, Any], path: str) -> Settings:
    """Return settings with the types and defaults of a dataclass."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(dict(values)))
        settings = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = f"{path}.{error.full_key}" if error.full_key else path
        raise DeepenError(f"{key}: {str(error).splitlines()[0]}; allowed: {', '.join(_keys(kind))}") from error
    assert isinstance(settings, kind)
    return settings


def _keys(kind: Any) -> list[str]:
    return list(kind.__dataclass_fields__)


def plain(section: DictConfig) -> dict[str, Any]:
    """Return a section of a configuration as plain values."""
    values = OmegaConf.to_container(section, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
