"""Self-contained HTML pages from templates: text is shown as that text, and nothing is fetched."""

import base64
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from direct_deepen.files import write_text
from direct_deepen.pages.drawing import number_text, palette
from direct_deepen.pages.view import View, plot_view
from direct_deepen.progress import progress_bar


def render(template: str, **content: Any) -> str:
    """Return the page that a template of this package makes of its content; a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("direct_deepen.pages"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"json": _json, "png": _data_uri, "number": number_text}
    assets = resources.files("direct_deepen.pages") / "assets"
    style, *scripts = ((assets / name).read_text("utf-8") for name in ("page.css", "region.js", "viewer.js"))
    return environment.get_template(template).render(style=style, script="".join(scripts), **content)


def write_view(view: View, numbers: Sequence[int], picture: Path | None, page: Path | None) -> list[Path]:
    """Write slices of a view as picture, and all of it as page, where a path is given; return what was written."""
    if picture is not None:
        plot_view(view, numbers, picture)
    if page is not None:
        write_text(page, view_page(view))
    return [path for path in (picture, page) if path is not None]


def view_page(view: View) -> str:
    """Return a page through which one scrolls slice by slice: slider, buttons, arrow keys, mouse wheel.

    Where the pixels of the panels are those of an image, pointing at one marks the place in all of them and shows their
    values there. A click enlarges a panel. Where the view has samples, dragging a rectangle shows the mean over it and
    its interval.
    """
    maps = dict.fromkeys(panel.colours for panel in view.panels if panel.limit is not None)
    content = {
        "labels": view.labels,
        "statistics": view.statistics,
        "regions": None if view.regions is None else view.regions.content(),
        "palettes": {name: [f"#{bytes(colour).hex()}" for colour in palette(name)] for name in maps},
        "panels": [
            {
                "title": panel.title,
                "limit": panel.limit,
                "colours": panel.colours,
                "files": [_data_uri(panel.png(number)) for number in range(len(view.labels))],
            }
            for panel in progress_bar(view.panels, name="page", unit="panel")
        ],
    }
    return render("view.html", view=view, content=content)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _json(content: Any) -> str:
    # "</script>" in a text would end the script that holds it.
    return json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
