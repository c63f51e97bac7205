"""What neither ruff nor import-linter can say of the sources."""

import ast
from pathlib import Path

import pytest

import direct_deepen

PACKAGE = Path(direct_deepen.__file__).parent


def sources(part: str = "") -> list[Path]:
    return sorted((PACKAGE / part).rglob("*.py"))


# ---- Tests of the three axes

WITHOUT_TESTS = {"DifferentiableEnergy"}
"""A protocol: nothing of it runs."""


def defined(source: str) -> set[str]:
    """Public functions and classes that a source defines at its top, but for dataclasses, which only hold results."""
    return {
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def used(source: str) -> set[str]:
    """Names that a source uses below its imports."""
    nodes = list(ast.walk(ast.parse(source)))
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


@pytest.mark.parametrize("axis", ["priors", "objectives", "inference"])
def test_whatever_stands_on_an_axis_has_tests_of_its_own(axis):
    names = set().union(*(defined(path.read_text()) for path in sources(axis))) - WITHOUT_TESTS
    tests = Path(__file__).parent
    found = set().union(*(used(path.read_text()) for path in [*(tests / axis).rglob("*.py"), tests / "conftest.py"]))
    assert names - found == set()


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
