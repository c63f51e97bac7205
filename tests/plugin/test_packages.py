"""What setup.cfg says of the packages is what there is: an installation that is no link to a checkout has them all."""

from configparser import ConfigParser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN = "direct.nn.deepen"
"""The name that direct_deepen/engines/plugin is installed by."""


@pytest.fixture(scope="module")
def options():
    parser = ConfigParser()
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parser["options"]


def test_every_package_is_installed(options):
    folders = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "direct_deepen").rglob("__init__.py")}
    names = {".".join(folder.parts) for folder in folders}
    listed = options["packages"].split()
    assert sorted(listed) == sorted(names - {"direct_deepen.engines.plugin"} | {PLUGIN})
    assert options["package_dir"].split() == [PLUGIN, "=", "direct_deepen/engines/plugin"]


def test_every_module_lies_in_a_package(options):
    folders = {path.parent for path in (REPOSITORY / "direct_deepen").rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()
