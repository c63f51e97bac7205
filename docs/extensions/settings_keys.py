"""The directive ``settings-keys``: every key of a section, with its default and its meaning.

    .. settings-keys:: direct_deepen.engines.settings.DeepenSettings
       :section: model

reads them off a settings class: keys and defaults from its fields, meanings from the docstrings of
it and its bases.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from docstrings import with_escaped_bars
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_ATTRIBUTES = re.compile(r"^Attributes\n-+\n(.*?)(?=\n\n^\w.*\n-+$|\Z)", re.MULTILINE | re.DOTALL)
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
    """Return what the docstrings of a settings class and its bases say of their attributes."""
    found: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        for section in _ATTRIBUTES.findall(inspect.cleandoc(base.__dict__.get("__doc__") or "")):
            for names, text in _ENTRY.findall(section + "\n"):
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
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


class SettingsKeys(SphinxDirective):
    """The directive."""

    required_arguments = 1
    option_spec = {"section": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Return a list of definitions."""
        module, _, name = self.arguments[0].rpartition(".")
        settings = getattr(importlib.import_module(module), name)()
        lines = []
        for key in keys(settings, self.options["section"]):
            default = "" if key.default is None else f" : {key.default or 'empty'}"
            lines += [f"``{key.name}``{default}", f"    {with_escaped_bars(key.meaning)}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("settings-keys", SettingsKeys)
    return {"parallel_read_safe": True}
