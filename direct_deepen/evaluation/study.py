"""A study: which methods are compared on which problems, read from one YAML file."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from direct_deepen.engines.configuration import read_yaml
from direct_deepen.errors import DeepenError, first_line, require, require_choice
from direct_deepen.evaluation.classical import CLASSICAL, ZERO_FILLED


# Not frozen: early versions of OmegaConf merge nothing into those.
@dataclass
class Tuning:
    """A key of the model section, such as ``inference.prior_weight``; the value with the highest mean PSNR is used."""

    key: str = MISSING
    values: list[Any] = MISSING


@dataclass
class Method:
    """A method: classical, trained by a configuration, or predictions in the output folder of ``direct predict``.

    ``checkpoint`` are the weights of a trained method, or those that predictions were made with. ``problems`` are those
    it takes part in, None for all. In paths ``{problem}`` stands for the name of the problem.
    """

    classical: str | None = None
    configuration: Path | None = None
    predictions: str | None = None
    checkpoint: str | None = None
    tune: Tuning | None = None
    problems: list[str] | None = None


class Run(NamedTuple):
    """One method on one problem."""

    problem: str
    name: str
    method: Method

    def path(self, text: str | None) -> Path:
        """Return the path that one of the method's is for this problem."""
        assert text is not None
        return Path(text.replace("{problem}", self.problem))


@dataclass
class Study:
    """All that a benchmark compares, on folders of volumes for test and validation.

    ``reference`` is the row of the tables that paired differences are taken to. A problem is, by name, a configuration
    whose inference dataset has mask, size and coil maps.
    """

    test: Path = MISSING
    validation: Path = MISSING
    reference: str = MISSING
    seed: int = MISSING
    problems: dict[str, Path] = MISSING
    methods: dict[str, Method] = MISSING

    def runs(self) -> list[Run]:
        """Return every problem with every method that takes part in it."""
        return [
            Run(problem, name, method)
            for problem in self.problems
            for name, method in self.methods.items()
            if method.problems is None or problem in method.problems
        ]


def load_study(path: Path) -> Study:
    """Read a study, with all of its keys and values checked."""
    content = read_yaml(path)
    try:
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), content))
    except ConfigKeyError as error:
        allowed = ", ".join(field.name for field in fields(error.object_type or Study))
        raise DeepenError(f"{path}: {error.full_key} is no key; allowed: {allowed}") from error
    except OmegaConfBaseException as error:
        raise DeepenError(f"{path}: {error.full_key}: {first_line(error)}") from error
    assert isinstance(study, Study)
    for name in ("problems", "methods"):
        require(len(getattr(study, name)) > 0, f"{path}: {name} is empty; allowed: one or more names")
    for name, method in study.methods.items():
        _check(f"{path}: methods.{name}", method, study)
    # A method whose predictions have MAP and mean gives two rows.
    rows = [row for name in study.methods for row in (name, f"{name}_map", f"{name}_mmse")]
    names = ", ".join(study.methods)
    require(study.reference in rows, f"{path}: reference is {study.reference!r}; allowed: rows of {names}")
    return study


def _check(where: str, method: Method, study: Study) -> None:
    kinds = ("classical", "configuration", "predictions")
    found = [kind for kind in kinds if getattr(method, kind) is not None]
    told = " and ".join(found) or "no kind"
    require(len(found) == 1, f"{where} has {told}; allowed: one of {', '.join(kinds)}")
    for problem in method.problems or ():
        known = ", ".join(study.problems)
        require(problem in study.problems, f"{where}.problems has {problem!r}; allowed: {known}")
    if method.tune is not None:
        require(method.configuration is not None, f"{where}.tune: allowed with a configuration only")
        require(len(method.tune.values) > 0, f"{where}.tune.values is empty; allowed: one or more")
    if method.classical is None:
        require(method.checkpoint is not None, f"{where}.checkpoint is missing")
    else:
        require_choice(f"{where}.classical", method.classical, (ZERO_FILLED, *CLASSICAL))
