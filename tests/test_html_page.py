"""Pages: one file, nothing fetched, text shown as text, and pictures that are the images they were made from."""

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from direct_deepen.pages.drawing import number_text, palette
from direct_deepen.pages.html_page import render, view_page
from direct_deepen.pages.view import Panel, View

VOID = {"meta", "link", "img", "input", "br"}
HOSTILE = "</script><script>alert(1)</script> & \"quoted\" 'so'"


class Page(HTMLParser):
    """Tags with their attributes, the text between them, and whether every tag is closed where it should be."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.text, self.scripts, self._open = [], "", [], []
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        else:
            self.text += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def volume(*, slices=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 2, (slices, 6, 8))


def decoded(source):
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


@pytest.fixture
def whole():
    """A view with text that would break out of its page."""
    return view_page(
        View(
            title=HOSTILE,
            panels=[Panel(HOSTILE, volume(), 2.0), Panel("std", volume(seed=1), 1.0, "inferno")],
            labels=[f"slice {number} {HOSTILE}" for number in range(3)],
            statistics=[{f"cost {HOSTILE}": f"{number}"} for number in range(3)],
            explanation=HOSTILE,
            about={HOSTILE: HOSTILE},
            configuration=HOSTILE,
        )
    )


def test_a_page_is_well_formed_and_shows_text_as_text(whole):
    parsed = Page(whole)
    # Title, heading, explanation, label, panel, statistic, two of the file and the configuration, but no script that
    # the text would have made.
    assert parsed.text.count(HOSTILE) == 9
    assert len(parsed.attributes("script")) == 2


def test_a_report_shows_text_as_text():
    run = {"name": HOSTILE, "tables": {HOSTILE: [{"a": "1", HOSTILE: HOSTILE}]}, "drawings": {}, "texts": {}}
    parsed = Page(render("report.html", curves=[(HOSTILE, b"png")], runs=[run]))
    # Subtitle, curve, heading, caption, column and cell.
    assert parsed.text.count(HOSTILE) == 6
    assert len(parsed.attributes("script")) == 1


def test_a_page_fetches_nothing(whole):
    parsed = Page(whole)
    sources = [value for _, attributes in parsed.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(sources) == 3
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|import\(", whole)
    policy = next(meta["content"] for meta in parsed.attributes("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_viewer_holds_every_slice_of_every_panel(whole):
    content = json.loads(Page(whole).scripts[0])
    assert [len(panel["files"]) for panel in content["panels"]] == [3, 3]
    assert content["labels"][2] == f"slice 2 {HOSTILE}"
    assert content["statistics"][1] == {f"cost {HOSTILE}": "1"}
    for panel, images, limit in zip(content["panels"], (volume(), volume(seed=1)), (2.0, 1.0), strict=True):
        numbers = {colour: number for number, colour in enumerate(content["palettes"][panel["colours"]])}
        for file, image in zip(panel["files"], images, strict=True):
            pixels = np.asarray(decoded(file).convert("RGB"))
            found = np.array([[numbers["#" + bytes(pixel).hex()] for pixel in row] for row in pixels])
            # What a pixel says of its value is right to half a shade, and the brightest where it is above the limit.
            np.testing.assert_allclose(found / 255 * limit, np.minimum(image, limit), rtol=0, atol=0.5001 * limit / 255)


def test_the_first_slice_is_there_without_a_script(whole):
    images = Page(whole).attributes("img")
    assert [image["alt"] for image in images] == [f"{title}, slice 0 {HOSTILE}" for title in (HOSTILE, "std")]
    content = json.loads(Page(whole).scripts[0])
    assert [image["src"] for image in images] == [panel["files"][0] for panel in content["panels"]]


@pytest.mark.parametrize("colours", ["gray", "inferno"])
def test_a_palette_is_that_of_matplotlib(colours):
    expected = colormaps[colours](np.arange(256), bytes=True)[:, :3]
    # Another rounding of the same colours.
    assert np.abs(palette(colours).astype(int) - expected).max() <= 1
    assert palette(colours).shape == (256, 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.123456, "0.123"), (1234.5, "1.23e+3"), (1.65e-4, "1.65e-4"), (2e-12, "2.00e-12"), (5e6, "5.00e+6")],
)
def test_numbers_of_scales_have_three_digits(value, text):
    assert number_text(value) == text


def test_numbers_that_do_not_fit_are_refused(one_line_error):
    with one_line_error("nothing to show"):
        View("a", [], [], [])
    with one_line_error("[2, 3]", "equally many"):
        View("a", [Panel("a", volume(), 1.0)], ["1", "2"], [{}, {}, {}])
