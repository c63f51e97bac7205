"""What neither ruff nor import-linter can say of the sources."""

import ast
from abc import ABC
from dataclasses import is_dataclass
from inspect import isabstract, isclass, isfunction
from pathlib import Path
from typing import Any, Protocol

import pytest

import direct_deepen
from direct_deepen import inference, objectives, priors

PACKAGE = Path(direct_deepen.__file__).parent


def sources(part: str = "") -> list[Path]:
    return sorted((PACKAGE / part).rglob("*.py"))


def used(source: str) -> set[str]:
    """Names that a source uses below its imports."""
    nodes = list(ast.walk(ast.parse(source)))
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


def does_something(part: Any) -> bool:
    """Leave out registries, results and options, which hold values, and bases, of which nothing runs by itself."""
    if not isclass(part):
        return isfunction(part)
    return not (is_dataclass(part) or isabstract(part) or {ABC, Protocol} & {*part.__bases__})


@pytest.mark.parametrize("axis", [priors, objectives, inference], ids=lambda axis: axis.__name__)
def test_whatever_stands_on_an_axis_has_tests_of_its_own(axis):
    public = {name for name in axis.__all__ if does_something(getattr(axis, name))}
    tests = Path(__file__).parent
    folder = tests / axis.__name__.rpartition(".")[2]
    assert (
        public - set().union(*(used(path.read_text()) for path in [*folder.rglob("*.py"), tests / "conftest.py"]))
        == set()
    )


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    return function.end_lineno - function.lineno + 1 - documented * (first.end_lineno - first.lineno + 1)


def test_functions_have_sixty_lines_at_most():
    functions = [
        (path.name, node.name, lines_of(node))
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [function for function in functions if function[2] > 60] == []


# ---- Random numbers

DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
DRAWS_WITHOUT_GENERATOR = {"rand_like", "randn_like", "randint_like"}


def global_draws(source: str) -> set[str]:
    """Functions of PyTorch that a source calls to draw from the global generator."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {
        ast.unparse(call.func)
        for call in calls
        # ``**options`` may hold a generator.
        if not any(keyword.arg in ("generator", None) for keyword in call.keywords)
    }
    return names & {f"torch.{name}" for name in DRAWS | DRAWS_WITHOUT_GENERATOR}


def test_pytorch_draws_from_generators_that_are_passed_in():
    assert {path: draws for path in sources() if (draws := global_draws(path.read_text()))} == {}


def test_global_draws_are_found():
    source = (
        "torch.randn(3); torch.randn_like(x); torch.rand(3, generator=g); x.normal(); torch.normal(0, 1, **options)"
    )
    assert global_draws(source) == {"torch.randn", "torch.randn_like"}
