"""The scripts of a project, which are no package."""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import tiny_direct


@contextmanager
def loaded_scripts(project: str, names: Sequence[str]) -> Iterator[dict[str, ModuleType]]:
    """Import scripts that import each other by their names; afterwards the names are free again."""
    modules: dict[str, ModuleType] = {}
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        path = tiny_direct.REPOSITORY / "projects" / project / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        modules[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    yield modules
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module
