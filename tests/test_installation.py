"""What an installation brings along: every module, every data file, every package that is imported."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGIN = "direct_deepen/engines/plugin/"
"""What is installed as direct/nn/deepen too."""


def files():
    """Files of the package in this checkout, as paths of an installation."""
    found = (path for path in (REPOSITORY / "direct_deepen").rglob("*") if path.is_file())
    return {path.relative_to(REPOSITORY).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built of a copy, as building leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(
        REPOSITORY / "direct_deepen", source / "direct_deepen", ignore=shutil.ignore_patterns("__pycache__")
    )
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    (path,) = source.glob("*.whl")
    return path


def test_the_wheel_has_all_files_of_the_package_and_adds_one_folder_to_direct(wheel):
    installed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    plugin = {f"direct/nn/deepen/{name.removeprefix(PLUGIN)}" for name in files() if name.startswith(PLUGIN)}
    assert installed == files() | plugin


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    declared = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements}
    imported = set()
    for name in files():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse((REPOSITORY / name).read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(node.module.partition(".")[0])
    # _typeshed is there for mypy only.
    imported -= sys.stdlib_module_names | {"direct_deepen", "_typeshed"}
    owners = packages_distributions()
    undeclared = {name for name in imported if not declared & {owner.lower() for owner in owners.get(name, [name])}}
    assert undeclared == set()


@pytest.mark.slow
def test_an_installation_from_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--python", sys.executable, tmp_path / "venv"], check=True, timeout=60)
    subprocess.run([*uv, "pip", "install", "--python", python, wheel], check=True, timeout=600)
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files() if name.endswith(".py")
    ]
    script = f"""
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
assert importlib.import_module("direct.nn.deepen").__file__.startswith({str(tmp_path)!r})
importlib.import_module("direct_deepen").load_pretrained("brain_phantom_2d4x")
"""
    # Isolated: the checkout and its environment are out of reach.
    subprocess.run([python, "-I", "-c", script, *sorted(modules)], cwd=tmp_path, check=True, timeout=600)
    doctor = subprocess.run(
        [python.with_name("direct-deepen"), "doctor"],
        cwd=tmp_path,
        check=True,
        timeout=600,
        capture_output=True,
        text=True,
    )
    assert str(tmp_path) in doctor.stdout
    assert "MAP" in doctor.stdout
