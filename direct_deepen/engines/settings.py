"""The model section of a configuration as checked settings: what all systems share, an objective, an inference."""

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from types import UnionType
from typing import Any, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from direct_deepen.data.coil_maps import COIL_MAPS
from direct_deepen.data.prewhitening import require_source
from direct_deepen.errors import DeepenError, first_line
from direct_deepen.inference import Inference, inferences
from direct_deepen.objectives import Objective, objectives
from direct_deepen.parts import Part, Registry, SharedSettings, check_settings, setting
from direct_deepen.physics.scale import FIELD_OF_VIEW, SCALES


@dataclass
class EngineSettings(SharedSettings):
    """What the engine reads from the model section, whatever the system."""

    coil_maps: str = setting("direct", choices=COIL_MAPS)
    """``direct``: as DIRECT's transforms estimate them. ``espirit``: by sigpy, from the fully sampled centre of the
    masked k-space, cached on disk."""
    prewhitening: str | None = None
    """Where the noise covariance of the coils is from, which makes them virtual coils with equal, independent noise.
    ``file``: the array ``noise_covariance`` or ``noise`` of a volume. A path ``….npy``: one of these for all volumes.
    ``corners``: variances alone, from the corners of every slice. null: none."""
    intensity_scale: str = setting(FIELD_OF_VIEW, choices=SCALES)
    """``field_of_view``: three times the root mean square of the low-pass image over the field of view of the
    reconstruction. ``object``: over the object, whatever air is around it."""
    objective: dict[str, Any] = field(default_factory=lambda: {"name": "contrastive"})
    """Training: ``name``, and the settings of the part of that name."""
    inference: dict[str, Any] = field(default_factory=lambda: {"name": "map"})
    """Reconstruction: ``name``, and the settings of the part of that name."""

    def check(self, path: str) -> None:
        """Hold ``prewhitening`` to what it may be."""
        require_source(f"{path}.prewhitening", self.prewhitening)

    def meaning(self) -> dict[str, Any]:
        """Return the settings that the weights of a training mean: with others they are those of another prior."""
        return {"noise_std": self.noise_std, "intensity_scale": self.intensity_scale}


INSTEAD = {
    "noise_std": "for data of other noise set model.inference.noise_std, and leave model.noise_std",
    "intensity_scale": "set it to that of the training",
}
"""What is to be done where a setting is not that of training."""


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
    settings: EngineSettings = _structured(EngineSettings, known, "model")
    check_settings(settings, "model")
    shared = SharedSettings(**{key: getattr(settings, key) for key in SharedSettings.__dataclass_fields__})
    return System(
        settings,
        _part(objectives, settings.objective, shared),
        _part(inferences, settings.inference, shared),
    )


def _part[Kind: Part](registry: Registry[Kind], section: Mapping[str, Any], shared: SharedSettings) -> Kind:
    path, values = f"model.{registry.kind}", dict(section)
    part: Kind = _structured(registry.find(str(values.pop("name"))), values, path)
    part.shared = shared
    check_settings(part, path)
    return part


def _structured(kind: Any, values: Mapping[str, Any], path: str) -> Any:
    """Return the dataclass ``kind`` with values, held to its types."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(dict(values))))
    except OmegaConfBaseException as error:
        key = f"{path}.{error.full_key}" if error.full_key else path
        keys = ", ".join(kind.__dataclass_fields__)
        allowed = _type_of(kind, str(error.full_key)) if isinstance(error, ValidationError) and error.full_key else keys
        raise DeepenError(f"{key}: {first_line(error)}; allowed: {allowed}") from error


def _type_of(kind: Any, key: str) -> str:
    """Return in words what type a key of a dataclass, or of one in it, has."""
    for name in key.split("."):
        kind = get_type_hints(kind).get(name.partition("[")[0], kind) if is_dataclass(kind) else kind
    words = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if isinstance(kind, UnionType):
        members = [member for member in get_args(kind) if not (member is int and float in get_args(kind))]
        return " or ".join(words[member] for member in members)
    if kind in words:
        return words[kind]
    return "a section of keys" if is_dataclass(kind) else str(kind).replace("typing.", "")


def plain(section: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a section of a configuration, or its values by name, without OmegaConf's containers."""
    return {
        str(key): OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in section.items()
    }
