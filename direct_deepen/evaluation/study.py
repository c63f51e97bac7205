"""A study: which methods are compared on which problems, read from one YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from direct_deepen.errors import DeepenError, require
from direct_deepen.evaluation.classical import CLASSICAL

ZERO_FILLED = "zero_filled"
_KEYS = ("test", "validation", "reference", "seed", "problems", "methods")
_METHOD_KEYS = ("classical", "configuration", "checkpoint", "tune", "problems")


@dataclass(frozen=True)
class Tuning:
    """One number that is chosen on validation data.

    Attributes
    ----------
    key
        Key of the settings, such as ``inference.prior_weight``.
    values
        Candidates; that with the highest mean PSNR is used.
    """

    key: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Method:
    """A column of the comparison.

    Attributes
    ----------
    name
        Its name in tables.
    classical
        One of :data:`CLASSICAL`, or ``zero_filled``; None for a trained method.
    configuration
        Configuration of DIRECT whose model section is used, for a trained method.
    checkpoint
        Its weights; ``{problem}`` stands for the name of the problem.
    tune
        What is tuned on validation data; None where nothing is. Classical methods tune λ by themselves.
    problems
        Problems it takes part in; None for all.
    """

    name: str
    classical: str | None = None
    configuration: Path | None = None
    checkpoint: str | None = None
    tune: Tuning | None = None
    problems: tuple[str, ...] | None = None

    def weights(self, problem: str) -> Path:
        """Return the checkpoint for a problem."""
        assert self.checkpoint is not None
        return Path(self.checkpoint.replace("{problem}", problem))


@dataclass(frozen=True)
class Study:
    """All that a benchmark compares.

    Attributes
    ----------
    test, validation
        Folders of volumes: what is reported, and what is tuned on.
    problems
        By name, the configuration whose inference dataset poses the problem: mask, size, coil maps.
    methods
        In the order of the tables.
    reference
        The method that paired differences are taken to.
    seed
        Seed of all that samples.
    """

    test: Path
    validation: Path
    problems: Mapping[str, Path]
    methods: tuple[Method, ...]
    reference: str
    seed: int

    def cells(self) -> list[tuple[str, Method]]:
        """Return every problem with every method that takes part in it."""
        return [
            (problem, method)
            for problem in self.problems
            for method in self.methods
            if method.problems is None or problem in method.problems
        ]


def load_study(path: Path) -> Study:
    """Read a study.

    Raises
    ------
    DeepenError
        If the file is missing or no YAML, a key is missing or unknown, or a value is not allowed.
    """
    require(path.is_file(), f"{path}: no such study")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, UnicodeDecodeError, YAMLError) as error:
        raise DeepenError(f"{path}: no YAML: {str(error).splitlines()[0]}") from error
    require(isinstance(content, dict), f"{path}: holds no keys; allowed: {', '.join(_KEYS)}")
    assert isinstance(content, dict)
    _require_keys(str(path), content, _KEYS, required=_KEYS)
    problems = {str(name): Path(value) for name, value in _section(path, content, "problems").items()}
    methods = tuple(_method(f"{path}: methods.{name}", str(name), section, problems)
                    for name, section in _section(path, content, "methods").items())  # fmt: skip
    names = tuple(method.name for method in methods)
    require(
        content["reference"] in names, f"{path}: reference is {content['reference']!r}; allowed: {', '.join(names)}"
    )
    require(isinstance(content["seed"], int), f"{path}: seed is {content['seed']!r}; allowed: an integer")
    return Study(
        Path(content["test"]), Path(content["validation"]), problems, methods, content["reference"], content["seed"]
    )


def _section(path: Path, content: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    section = content[name]
    require(isinstance(section, dict) and len(section) > 0, f"{path}: {name} is empty; allowed: one or more names")
    assert isinstance(section, dict)
    return section


def _require_keys(where: str, section: Mapping[Any, Any], allowed: tuple[str, ...], required: tuple[str, ...]) -> None:
    for key in section:
        require(key in allowed, f"{where}: {key} is no key; allowed: {', '.join(allowed)}")
    for key in required:
        require(key in section, f"{where}: {key} is missing")


def _method(where: str, name: str, section: Any, problems: Mapping[str, Path]) -> Method:
    require(isinstance(section, dict), f"{where} is {section!r}; allowed: keys {', '.join(_METHOD_KEYS)}")
    _require_keys(where, section, _METHOD_KEYS, required=())
    chosen = section.get("problems")
    if chosen is not None:
        for problem in chosen:
            require(problem in problems, f"{where}.problems has {problem!r}; allowed: {', '.join(problems)}")
        chosen = tuple(chosen)
    if "classical" in section:
        allowed = (ZERO_FILLED, *CLASSICAL)
        kind = section["classical"]
        require(kind in allowed, f"{where}.classical is {kind!r}; allowed: {', '.join(allowed)}")
        return Method(name, classical=kind, problems=chosen)
    _require_keys(where, section, _METHOD_KEYS, required=("configuration", "checkpoint"))
    tune = section.get("tune")
    if tune is not None:
        _require_keys(f"{where}.tune", tune, ("key", "values"), required=("key", "values"))
        require(len(tune["values"]) > 0, f"{where}.tune.values is empty; allowed: one or more numbers")
        tune = Tuning(str(tune["key"]), tuple(float(value) for value in tune["values"]))
    return Method(
        name,
        configuration=Path(section["configuration"]),
        checkpoint=str(section["checkpoint"]),
        tune=tune,
        problems=chosen,
    )
