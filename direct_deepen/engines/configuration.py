"""A configuration of DIRECT with some values changed: DIRECT's own loader takes a file and nothing else."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from direct.config.defaults import DefaultConfig, InferenceConfig, TrainingConfig, ValidationConfig
from direct.data.datasets_config import TransformsConfig
from direct.environment import load_dataset_config, load_model_config_from_name
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from direct_deepen.engines.settings import plain, system_of
from direct_deepen.errors import DeepenError, first_line, require

_SHARED = "transforms"
"""The key that stands for the transforms of training, validation and inference, which are to be equal."""


def changed_configuration(source: Path, overlays: Sequence[Path], changes: Sequence[str]) -> dict[str, Any]:
    """Return a configuration with the values of other files, then with single values, in place of its own.

    The key ``transforms`` of ``overlays`` is that of all three datasets; changes are ``key.in.dots=value``, in YAML.
    A file that cannot be read, an unknown key, a value that is not allowed: a :class:`DeepenError` names it.
    """
    overlay = OmegaConf.merge(*map(read_yaml, overlays), _parsed(changes))
    shared = overlay.pop(_SHARED, {})
    try:
        _typed(OmegaConf.create({_SHARED: TransformsConfig}), OmegaConf.create({_SHARED: shared}))
        result = OmegaConf.merge(read_yaml(source), overlay)
        typed = _typed(_schema(result), result)
        for dataset in _datasets(result):
            dataset[_SHARED] = OmegaConf.merge(dataset.get(_SHARED, {}), shared)
    except (OmegaConfBaseException, AttributeError, TypeError) as error:
        raise DeepenError(f"{', '.join(map(str, [source, *overlays, *changes]))}: {first_line(error)}") from error
    if str(typed.model.model_name).startswith("deepen."):
        # The parts check their own keys and values.
        system_of(plain(typed.model))
    return OmegaConf.to_container(result)


def text_of(content: dict[str, Any], comment: str) -> str:
    """Return the text of a configuration: what its datasets have in common stands there once."""
    datasets = list(_datasets(content))
    for dataset in datasets[1:]:
        if _SHARED in dataset and dataset[_SHARED] == datasets[0].get(_SHARED):
            # The same object: YAML gives it a name.
            dataset[_SHARED] = datasets[0][_SHARED]
    text: str = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    return f"# {' '.join(comment.split())}\n{text}"


def read_yaml(path: Path) -> DictConfig:
    """Return the content of a file of configuration; an error names the file."""
    require(path.is_file(), f"{path}: no such file")
    try:
        content = OmegaConf.load(path)
    except (OmegaConfBaseException, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DeepenError(f"{path}: no YAML: {first_line(error)}") from error
    require(isinstance(content, DictConfig), f"{path}: holds no keys")
    return content


def _parsed(changes: Sequence[str]) -> DictConfig:
    for change in changes:
        require("=" in change, f"{change!r} is no change; allowed: key=value")
    try:
        return OmegaConf.from_dotlist(list(changes))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise DeepenError(f"{' '.join(changes)}: {first_line(error)}") from error


def _datasets(config: Any) -> Iterator[Any]:
    for section in ("training", "validation"):
        yield from (config.get(section) or {}).get("datasets") or []
    if (config.get("inference") or {}).get("dataset"):
        yield config["inference"]["dataset"]


def _schema(config: DictConfig) -> DictConfig:
    """Return all keys that DIRECT reads with the model of a configuration, with their types and defaults."""
    schema = OmegaConf.structured(DefaultConfig)
    name = OmegaConf.select(config, "model.model_name")
    require(isinstance(name, str), "model.model_name is missing; allowed: a model, as deepen.priors.QuadraticEnergy")
    schema.model = keys_of_model(name)
    schema.training, schema.validation, schema.inference = TrainingConfig, ValidationConfig, InferenceConfig
    dataset = OmegaConf.select(config, "inference.dataset.name")
    if dataset is not None:
        try:
            schema.inference.dataset = load_dataset_config(dataset)
        except AttributeError as error:
            raise DeepenError(f"inference.dataset.name is {dataset!r}: DIRECT has no such dataset") from error
    return schema


def keys_of_model(name: str) -> Any:
    """Return the keys of the model section, typed, that DIRECT finds for a model."""
    try:
        return load_model_config_from_name(name)
    except SystemExit as error:
        # DIRECT has logged why, and would end here.
        raise DeepenError(f"model.model_name is {name!r}: DIRECT finds no such model") from error


def _typed(schema: DictConfig, config: DictConfig) -> DictConfig:
    """Return a configuration with types and defaults."""
    try:
        return OmegaConf.merge(schema, config)
    except ValidationError as error:
        if not error.full_key:  # empty in early versions
            raise
        raise DeepenError(f"{error.full_key}: {first_line(error)}") from error
    except ConfigKeyError as error:
        key, known = str(error.full_key), list(_keys(schema))
        # A key in another section is as near as one that is misspelt.
        last = key.rpartition(".")[2]
        near = [name for name in known if name.rpartition(".")[2] == last] + get_close_matches(key, known)
        hint = f"; near it: {', '.join(dict.fromkeys(near[:3]))}" if near else ""
        raise DeepenError(f"{key}: no such key{hint}") from error


def _keys(section: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in section:
        yield f"{prefix}{key}"
        value = None if OmegaConf.is_missing(section, key) else section[key]
        if isinstance(value, DictConfig):
            yield from _keys(value, f"{prefix}{key}.")
