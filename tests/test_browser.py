"""Pages in a real browser: no error of a script, and pictures, figures and values that follow what one does."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

from direct_deepen.html_page import Reel, page, viewer
from direct_deepen.pictures import Panel

pytestmark = pytest.mark.slow

SLICES = 4
LIMIT = 2.0
ACT = """<pre id="report"></pre><script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
document.addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
const find = (selector) => document.querySelector(selector);
const shown = () => ({
  label: find(".label").textContent,
  sources: [...document.querySelectorAll(".panel img")].map((image) => image.src),
  figures: find(".figures").textContent,
  slider: Number(find("input").value),
  ends: [find(".previous").disabled, find(".next").disabled],
});
const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const wheel = (deltaY) => find(".panels").dispatchEvent(new WheelEvent("wheel", { deltaY, cancelable: true }));
const loaded = () => Promise.all([...document.querySelectorAll(".panel img")].map((image) => image.decode()));
addEventListener("load", async () => {
  const seen = { start: shown() };
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
  find("#report").textContent = JSON.stringify({ seen, errors });
});
</script></body>"""
"""Stands in for a reader, and writes down what is seen."""


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs chromium")
    return found


def images(seed):
    return np.random.default_rng(seed).uniform(0, LIMIT, (SLICES, 6, 8))


@pytest.fixture(scope="module")
def report(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    reels = [Reel.of(Panel("MAP", images(0), LIMIT)), Reel.of(Panel("std", images(1), LIMIT, "inferno"))]
    # Room for four: an enlarged panel takes two.
    reels += [Reel("drawing", reels[0].files), Reel("other", reels[1].files)]
    figures = [{"cost": f"{number}.5"} for number in range(SLICES)]
    content = page("title", viewer(reels, [f"slice {number}" for number in range(SLICES)], figures))
    path = folder / "page.html"
    path.write_text(content.replace("</body>", ACT), encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,900", "--virtual-time-budget=5000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    text = re.search(r'<pre id="report">(.*?)</pre>', output, flags=re.DOTALL)[1]
    return json.loads(unescape(text)), reels


def test_no_script_fails_and_nothing_is_fetched(report):
    assert report[0]["errors"] == []


@pytest.mark.parametrize(
    ("act", "number"), [("start", 0), ("slider", 2), ("key", 3), ("end", 3), ("wheel", 2), ("button", 1)]
)
def test_pictures_and_figures_are_those_of_the_slice_that_was_gone_to(report, act, number):
    found, reels = report
    seen = found["seen"][act]
    content = page("", viewer(reels, ["0"] * SLICES, [{}] * SLICES))
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', content)
    assert seen["sources"] == [reel["files"][number] for reel in json.loads(data)["reels"]]
    assert len(set(seen["sources"])) == 2
    assert (seen["label"], seen["figures"]) == (f"slice {number}", f"cost{number}.5")
    assert seen["slider"] == number
    assert seen["ends"] == [number == 0, number == SLICES - 1]


def test_pointing_shows_the_values_of_all_images_at_that_place(report):
    values = report[0]["seen"]["values"]
    expected = [images(seed)[1, 2, 5] for seed in (0, 1)]
    # An image is stored in 255 steps and shown to three digits.
    assert [float(value) for value in values] == pytest.approx(expected, abs=LIMIT / 255)


def test_a_click_enlarges_a_picture(report):
    assert report[0]["seen"]["enlarged"] > 1.8
