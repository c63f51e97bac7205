"""Every script of the projects can be imported: no name that it uses is gone."""

from importlib import import_module

import pytest
import tiny_direct

PROJECTS = tiny_direct.REPOSITORY / "projects"
SCRIPTS = sorted(".".join(path.relative_to(PROJECTS.parent).with_suffix("").parts) for path in PROJECTS.rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_imported(script):
    import_module(script)
