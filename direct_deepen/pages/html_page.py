"""Self-contained HTML pages: text, tables, pictures, and volumes to scroll through, in one file without a network.

A page is built from parts, which are HTML that the functions of this module return::

    write_page(Path("run.html"), page("A run", section("Figures", definitions({"PSNR": "33.0 dB"}))))

Whatever they are given as text is shown as that text.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import NewType

import numpy as np

from direct_deepen.errors import require
from direct_deepen.files import write_text
from direct_deepen.pages.pictures import Panel, indexed_png, number_text, palette

Html = NewType("Html", str)
"""Text that is HTML already."""

_ASSETS = resources.files("direct_deepen.pages") / "assets"
# The browser itself sees to it that nothing is fetched.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_BAR_COLOURS = 16


def page(title: str, *parts: Html, subtitle: str = "") -> Html:
    """Return a whole page."""
    style = (_ASSETS / "page.css").read_text(encoding="utf-8")
    script = (_ASSETS / "viewer.js").read_text(encoding="utf-8")
    below = f"<p>{escape(subtitle)}</p>" if subtitle else ""
    return Html(
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{below}
</header>
<main>
{"".join(parts)}</main>
<script>
{script}</script>
</body>
</html>
"""
    )


def write_page(path: Path, content: Html) -> None:
    """Write a page; a reader never finds half a file."""
    write_text(path, content)


# ---- Parts


def section(heading: str, *parts: Html) -> Html:
    """Return parts under a heading."""
    return Html(f"<section>\n<h2>{escape(heading)}</h2>\n{''.join(parts)}</section>\n")


def paragraph(text: str) -> Html:
    """Return a paragraph."""
    return Html(f"<p>{escape(text)}</p>\n")


def definitions(values: Mapping[str, str]) -> Html:
    """Return a list of names and values."""
    return Html(f"<dl>{_terms(values)}</dl>\n")


def table(rows: Sequence[Mapping[str, str]], caption: str = "") -> Html:
    """Return a table of rows, at least one, all with the keys of the first, which head the columns."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row.values()) + "</tr>\n" for row in rows)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="table"><table>{above}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'
    )


def details(summary: str, text: str) -> Html:
    """Return preformatted text, such as a configuration, that is shown on request."""
    return Html(f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>\n")


def picture(png: bytes, description: str) -> Html:
    """Return a picture with its description."""
    return Html(
        f'<figure class="plot"><img src="{_inlined(png)}" alt="{escape(description)}">'
        f"<figcaption>{escape(description)}</figcaption></figure>\n"
    )


def gallery(*pictures: Html) -> Html:
    """Return pictures beside each other, as many as the window is wide."""
    return Html(f'<div class="gallery">\n{"".join(pictures)}</div>\n')


# ---- The viewer


@dataclass(frozen=True)
class Reel:
    """The pictures of one kind, one a slice.

    Attributes
    ----------
    title
        What they show.
    files
        PNG files.
    limit
        Value of the brightest colour, where the pixels of the files are those of an image; None for drawings.
    colours
        Name of the colour map of the files, where there is a ``limit``.
    """

    title: str
    files: Sequence[bytes]
    limit: float | None = None
    colours: str = ""

    @classmethod
    def of(cls, panel: Panel) -> "Reel":
        """Return the pictures of a panel."""
        files = [indexed_png(image, panel.limit, panel.colours) for image in panel.images]
        return cls(panel.title, files, panel.limit, panel.colours)


def viewer(reels: Sequence[Reel], labels: Sequence[str], figures: Sequence[Mapping[str, str]], *aside: Html) -> Html:
    """Return a part through which one scrolls slice by slice: slider, buttons, arrow keys, mouse wheel.

    Where the pixels of the pictures are those of an image, pointing at one marks the place in all of them and shows
    their values there. A click enlarges a picture.

    Parameters
    ----------
    reels
        The pictures that are shown beside each other, at least one reel.
    labels
        Names of the slices.
    figures
        Names and values of every slice.
    aside
        Parts that stand below the figures.

    Raises
    ------
    DeepenError
        If there is nothing to show, or the numbers of pictures, labels and figures differ.
    """
    counts = {len(labels), len(figures), *(len(reel.files) for reel in reels)}
    require(len(reels) > 0 and min(counts) > 0, "nothing to show: no picture")
    require(len(counts) == 1, f"a viewer has {sorted(counts)} pictures, labels and figures; allowed: equally many")
    colours = {reel.colours: palette(reel.colours) for reel in reels if reel.limit is not None}
    content = {
        "labels": list(labels),
        "figures": [dict(values) for values in figures],
        "palettes": {name: [_hexadecimal(colour) for colour in values] for name, values in colours.items()},
        "reels": [
            {
                "title": reel.title,
                "limit": reel.limit,
                "colours": reel.colours,
                "files": [_inlined(file) for file in reel.files],
            }
            for reel in reels
        ],
    }
    # "</script>" in a text would end the script that holds it.
    inlined = json.dumps(content, ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    panels = "".join(_panel(reel, labels[0], colours) for reel in reels)
    return Html(
        f"""<div class="viewer">
<div class="controls">
<button type="button" class="previous" aria-label="previous slice">‹</button>
<input type="range" min="0" max="{len(labels) - 1}" value="0" aria-label="slice">
<button type="button" class="next" aria-label="next slice">›</button>
<output class="label" aria-live="polite">{escape(labels[0])}</output>
<p class="hint"><kbd>←</kbd> <kbd>→</kbd> or mouse wheel: slices · point: values · click: enlarge</p>
</div>
<div class="stage">
<div class="panels">
{panels}</div>
<aside>
<h2>This slice</h2>
<dl class="figures">{_terms(figures[0])}</dl>
{"".join(aside)}</aside>
</div>
<script type="application/json">{inlined}</script>
</div>
"""
    )


def _panel(reel: Reel, label: str, colours: Mapping[str, np.ndarray]) -> str:
    title = escape(reel.title)
    image = f'<img src="{_inlined(reel.files[0])}" alt="{title}, {escape(label)}">'
    button = f'<button type="button" class="picture" aria-pressed="false" title="enlarge">{image}</button>'
    if reel.limit is None:
        return f'<figure class="panel drawing"><figcaption><span>{title}</span></figcaption>{button}</figure>\n'
    shades = colours[reel.colours][np.linspace(0, 255, _BAR_COLOURS).round().astype(int)]
    gradient = ", ".join(_hexadecimal(shade) for shade in shades)
    return (
        f'<figure class="panel"><figcaption><span>{title}</span><output class="value"></output></figcaption>{button}'
        f'<div class="bar"><span>0</span><i style="background: linear-gradient(to right, {gradient})"></i>'
        f"<span>{number_text(reel.limit)}</span></div></figure>\n"
    )


def _terms(values: Mapping[str, str]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())


def _inlined(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _hexadecimal(colour: np.ndarray) -> str:
    return f"#{bytes(colour).hex()}"
