"""Pages in a real browser: no error of a script, and pictures, figures and values that follow what one does."""

import json
import re

import numpy as np
import pytest
from browser import visit

from direct_deepen.pages.html_page import view_page
from direct_deepen.pages.view import Panel, View

pytestmark = pytest.mark.slow

SLICES = 4
LIMIT = 2.0
ACT = """
  const shown = () => ({
    label: find(".label").textContent,
    sources: images().map((image) => image.src),
    statistics: find(".statistics").textContent,
    slider: Number(find("input").value),
    ends: [find(".previous").disabled, find(".next").disabled],
  });
  const wheel = (deltaY) => find(".panels").dispatchEvent(new WheelEvent("wheel", { deltaY, cancelable: true }));
  seen.start = shown();
  find("input").value = 2;
  find("input").dispatchEvent(new Event("input"));
  seen.slider = shown();
  key("ArrowRight");
  seen.key = shown();
  key("ArrowRight");
  seen.end = shown();
  wheel(-100);
  seen.wheel = shown();
  find(".previous").click();
  seen.button = shown();
  await loaded();
  const box = find(".picture").getBoundingClientRect();
  const place = { clientX: box.left + (5.5 / 8) * box.width, clientY: box.top + (2.5 / 6) * box.height };
  find(".picture").dispatchEvent(new PointerEvent("pointermove", place));
  seen.values = [...document.querySelectorAll(".value")].map((value) => value.textContent);
  const before = box.width;
  find(".picture").click();
  seen.enlarged = find(".picture").getBoundingClientRect().width / before;
"""
"""Stands in for a reader, and writes down what is seen."""


def images(seed):
    return np.random.default_rng(seed).uniform(0, LIMIT, (SLICES, 6, 8))


class Drawing(Panel):
    """A panel whose pixels are no values."""

    def png(self, number):
        return Panel("", self.images, LIMIT).png(number)


VIEW = View(
    "title",
    # Room for four: an enlarged panel takes two.
    [
        Panel("MAP", images(0), LIMIT),
        Panel("std", images(1), LIMIT, "inferno"),
        Drawing("drawing", images(0), None),
        Drawing("other", images(1), None),
    ],
    [f"slice {number}" for number in range(SLICES)],
    [{"cost": f"{number}.5"} for number in range(SLICES)],
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "page.html"
    path.write_text(view_page(VIEW), encoding="utf-8")
    return visit(path, ACT)


def test_no_script_fails_and_nothing_is_fetched(report):
    assert report.console == []


@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ("<script>throw new Error('first')</script>", "Uncaught Error: first"),
        ("<script>console.warn('second')</script>", "second"),
        ("<img src='https://127.0.0.1:9/a.png'>", "Content Security Policy"),
    ],
)
def test_the_console_tells_what_is_wrong(tmp_path, addition, words):
    content = view_page(VIEW).replace("</main>", f"{addition}</main>")
    (tmp_path / "page.html").write_text(content, encoding="utf-8")
    (line,) = visit(tmp_path / "page.html").console
    assert words in line


@pytest.mark.parametrize(
    ("act", "number"), [("start", 0), ("slider", 2), ("key", 3), ("end", 3), ("wheel", 2), ("button", 1)]
)
def test_pictures_and_statistics_are_those_of_the_slice_that_was_gone_to(report, act, number):
    seen = report.seen[act]
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', view_page(VIEW))
    assert seen["sources"] == [panel["files"][number] for panel in json.loads(data)["panels"]]
    # A drawing is that of the first panel.
    assert len(set(seen["sources"])) == 3
    assert (seen["label"], seen["statistics"]) == (f"slice {number}", f"cost{number}.5")
    assert seen["slider"] == number
    assert seen["ends"] == [number == 0, number == SLICES - 1]


def test_pointing_shows_the_values_of_all_images_at_that_place(report):
    values = report.seen["values"]
    expected = [images(seed)[1, 2, 5] for seed in (0, 1)]
    # An image is stored in 255 steps and shown to three digits.
    assert [float(value) for value in values] == pytest.approx(expected, abs=LIMIT / 255)


def test_a_click_enlarges_a_picture(report):
    assert report.seen["enlarged"] > 1.8
