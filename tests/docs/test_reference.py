"""The reference has every public name, the configuration's keys have a meaning, the gallery has every picture."""

import importlib
import re

import pytest
import settings_keys
from documents import ROOT

import direct_deepen
from direct_deepen.engines.plugin import config
from direct_deepen.engines.settings import EngineSettings
from direct_deepen.inference import inferences
from direct_deepen.objectives import objectives

DOCS = ROOT / "docs"

PACKAGES = ["direct_deepen", *(f"direct_deepen.{axis}" for axis in ("physics", "priors", "objectives", "inference"))]


def described() -> set[str]:
    """The full names that the pages of the reference describe."""
    found = set()
    for page in (DOCS / "api").glob("*.rst"):
        module = ""
        for directive, name in re.findall(r"^\.\. ([\w:]+):: ([\w.]+)(?:\(\))?$", page.read_text(), flags=re.MULTILINE):
            if directive in ("module", "currentmodule", "automodule"):
                module = name
            elif directive.startswith("auto"):
                found.add(f"{module}.{name}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package):
    # A name that several packages have is described where most will look for it: in direct_deepen itself.
    top = set(direct_deepen.__all__)
    expected = {
        f"direct_deepen.{name}" if name in top else f"{package}.{name}"
        for name in importlib.import_module(package).__all__
    }
    assert expected - described() == set()


def test_what_the_reference_describes_exists():
    for name in described():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def documented_settings() -> list[tuple[str, str, str]]:
    text = (DOCS / "api" / "configuration.rst").read_text()
    directive = r"^\.\. settings-keys:: (\S+)\n   :section: (\S+)\n(?:   :arguments: (\S+))?$"
    return re.findall(directive, text, flags=re.MULTILINE)


@pytest.mark.parametrize(("settings", "section", "arguments"), documented_settings())
def test_every_key_of_the_configuration_has_a_meaning(settings, section, arguments):
    keys = settings_keys.listed(settings, section, arguments or None)
    assert keys
    assert [key.name for key in keys if not key.meaning] == []


def test_every_part_and_every_prior_is_documented():
    parts = {registry.find(name) for registry in (objectives, inferences) for name in registry.names}
    priors = {value for name, value in vars(config).items() if name.endswith("Config")}
    documented = {settings_keys.imported(name) for name, _, _ in documented_settings()}
    assert documented == parts | priors | {EngineSettings}


def test_every_picture_of_the_projects_is_in_the_gallery():
    shown = set(re.findall(r"!\[[^\]]*\]\(\.\./(\S+?)\)", (DOCS / "gallery.md").read_text()))
    pictures = {str(path.relative_to(ROOT)) for path in (ROOT / "projects").glob("*/results/**/*.png")}
    assert shown == pictures


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *DOCS.glob("*.md"), *(ROOT / "projects").glob("*/README.md")], ids=str
)
def test_links_of_pages_lead_to_files_where_the_pages_are_read_as_files(page):
    links = re.findall(
        r"\]\(([^)\s#]+)[^)]*\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    )
    local = [link for link in links if not re.match(r"https?:", link)]
    assert [link for link in local if not (page.parent / link).is_file()] == []


def test_every_page_of_the_guide_is_in_its_contents():
    listed = set(re.findall(r"^(\w+)$", (DOCS / "index.md").read_text(), flags=re.MULTILINE))
    assert listed == {page.stem for page in DOCS.glob("*.md")} - {"index"}
