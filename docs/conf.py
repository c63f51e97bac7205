"""Configuration of Sphinx: ``make docs`` builds guide and reference; every warning is an error."""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import direct_deepen

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "direct-deepen"
release = direct_deepen.__version__
html_title = f"direct-deepen {release}"
html_theme = "furo"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["width.css"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docstrings",
    "myst_parser",
    "settings_keys",
]

# ---- Pages: the source is the root of the repository, so that links hold here as on GitHub

root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/api/*", "projects/*/README.md", "projects/*/results/**.md"]
# Folders that are not even looked through.
exclude_patterns = [".*", "build", "direct_deepen", "docs/_build", "runs", "tests"]

# ---- Pages in Markdown

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# ---- Docstrings

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_ivar = True
# Results without a name: no type is to be guessed from their first words.
napoleon_use_rtype = False
napoleon_preprocess_types = False

# Other projects' names are not looked up: the documentation builds without a network.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(torch|numpy|np|pathlib|collections|typing|omegaconf|h5py|direct|abc|nn|matplotlib)(\..*)?",
    ),
    (
        r"py:.*",
        r"(Path|Any|Self|Callable|Sequence|Mapping|Iterator|Tensor|Generator|ABC|Module|ndarray)",
    ),
    # Type variables, keywords of functions, and what has no page of its own.
    (r"py:.*", r"Settings|Kind|dict\[str|format|(.*\.)?Frame"),
]
# Tables of results are read on their own too.
suppress_warnings = ["myst.header"]


def resolve_by_last_part(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Find ``langevin`` where it is documented as ``direct_deepen.langevin``.

    Docstrings name things as their module does; the reference may list them by another name.
    """
    if node.get("refdomain") != "py":
        return None
    domain = environment.domains.python_domain
    last = re.sub(r".*\.", "", node["reftarget"])
    found = {
        name: entry
        for name, entry in domain.objects.items()
        if name.endswith(f".{last}") and entry.objtype != "module"
    }
    places = {(entry.docname, entry.node_id) for entry in found.values() if not entry.aliased}
    if len(places) != 1:
        return None
    ((docname, anchor),) = places
    reference = nodes.reference("", "", content, internal=True)
    relative = app.builder.get_relative_uri(node["refdoc"], docname)
    reference["refuri"] = f"{relative}#{anchor}"
    return reference


def without_contents(app: Sphinx, document: nodes.document) -> None:
    """Let tables of results be pages that others link to, and that no list of contents has."""
    if "/results/" in app.env.docname:
        app.env.metadata[app.env.docname]["orphan"] = True


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("doctree-read", without_contents)
    app.connect("missing-reference", resolve_by_last_part)
