"""The directive ``settings-keys``: every key of a section, with its default and its meaning.

    .. settings-keys:: direct_deepen.engines.settings.EngineSettings
       :section: model

reads them off a settings class: keys and defaults from its fields, meanings from the docstrings of
it, its bases and their fields. With ``:arguments: module.Class`` only the keys that are arguments
of a prior are listed, and their meanings come from the parameters of that class too.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from docstrings import with_escaped_bars
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from direct_deepen.engines.models import PriorConfig

_ATTRIBUTES = re.compile(
    r"^(?:Attributes|Parameters)\n-+\n(.*?)(?=\n\n^\w.*\n-+$|\Z)", re.MULTILINE | re.DOTALL
)
_ENTRY = re.compile(r"^(\w[^\n]*)\n((?:[ ]+[^\n]*\n?|\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes
    ----------
    name
        Dotted, from the top of the file.
    default
        As a file would have it; None for a section.
    meaning
        From the docstring; empty if there is none.
    """

    name: str
    default: str | None
    meaning: str


def meanings(settings: type) -> dict[str, str]:
    """Return what a settings class and its bases say of their attributes."""
    found: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        for section in _ATTRIBUTES.findall(inspect.cleandoc(base.__dict__.get("__doc__") or "")):
            for names, text in _ENTRY.findall(section + "\n"):
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
        if is_dataclass(base):
            documented = ModuleAnalyzer.for_module(base.__module__).find_attr_docs()
            found |= {
                name: " ".join(lines).strip()
                for (owner, name), lines in documented.items()
                if owner == base.__qualname__
            }
    return found


def keys(settings: Any, section: str) -> Iterator[Key]:
    """Yield the keys of settings and of all sections in them."""
    meaning = meanings(type(settings))
    for field in fields(settings):
        name, value = f"{section}.{field.name}", getattr(settings, field.name)
        if is_dataclass(value):
            summary = inspect.cleandoc(type(value).__doc__ or "").split("\n\n")[0]
            yield Key(name, None, meaning.get(field.name, summary))
            yield from keys(value, name)
        else:
            yield Key(name, "null" if value is None else str(value), meaning.get(field.name, ""))


def imported(name: str) -> Any:
    """Return what a full name stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def listed(settings: str, section: str, arguments: str | None) -> list[Key]:
    """Return the keys that a directive lists."""
    found = list(keys(imported(settings)(), section))
    if arguments is None:
        return found
    every_system = {field.name for field in fields(PriorConfig)}
    own = [key for key in found if key.name.removeprefix(f"{section}.") not in every_system]
    known = meanings(imported(arguments))
    return [
        replace(key, meaning=key.meaning or known.get(key.name.rpartition(".")[2], ""))
        for key in own
    ]


class SettingsKeys(SphinxDirective):
    """The directive."""

    required_arguments = 1
    option_spec = {  # noqa: RUF012
        "section": directives.unchanged_required,
        "arguments": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Return a list of definitions."""
        lines = []
        for key in listed(
            self.arguments[0], self.options["section"], self.options.get("arguments")
        ):
            default = "" if key.default is None else f" : {key.default or 'empty'}"
            lines += [f"``{key.name}``{default}", f"    {with_escaped_bars(key.meaning)}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("settings-keys", SettingsKeys)
    return {"parallel_read_safe": True}
