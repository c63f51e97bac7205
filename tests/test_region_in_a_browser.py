"""Regions of a page in a real browser: what dragging, typing and keys show is what `Posterior.region` says."""

import re

import numpy as np
import pytest
import torch
from browser import opened
from sampled_file import draw_samples, write_sampled

from direct_deepen import Posterior
from direct_deepen.cli.main import main
from direct_deepen.inference import Samples
from direct_deepen.pages import region_samples

pytestmark = pytest.mark.slow

SLICES, CHAINS, KEEP, ROWS, COLUMNS = 3, 6, 2, 40, 32
LOOK = """
  await loaded();
  const fields = [...document.querySelectorAll(".region input")];
  seen.told = find(".region output").textContent;
  seen.fields = fields.map((field) => field.value);
  seen.boxes = [...document.querySelectorAll(".box")].filter((box) => box.checkVisibility()).map((box) => {
    const inner = box.getBoundingClientRect(), outer = box.parentElement.getBoundingClientRect();
    return [
      (inner.top - outer.top) / outer.height, (inner.left - outer.left) / outer.width,
      inner.height / outer.height, inner.width / outer.width,
    ];
  });
  seen.label = find(".label").textContent;
  seen.large = document.querySelectorAll(".large").length;
  const picture = images()[1].getBoundingClientRect();
  seen.picture = [picture.left, picture.top, picture.width, picture.height];
  seen.values = [...document.querySelectorAll(".value")].map((value) => value.textContent);
  seen.scrolled = window.scrollY;
"""


@pytest.fixture(scope="module")
def samples():
    return draw_samples(SLICES, CHAINS, KEEP, ROWS, COLUMNS)


@pytest.fixture
def page(tmp_path, samples):
    path = write_sampled(tmp_path / "a.posterior.h5", samples, chains=CHAINS)
    assert main(["posterior", str(path), "--html", str(tmp_path / "a.html")]) == 0
    return tmp_path / "a.html"


class Reader:
    """Someone at an open page, who speaks of pixels of the second image."""

    def __init__(self, tab):
        self.tab = tab

    def look(self):
        return self.tab.run(LOOK)

    def place(self, row, column):
        """Where the middle of a pixel is."""
        left, top, width, height = self.look()["picture"]
        return left + (column + 0.5) / COLUMNS * width, top + (row + 0.5) / ROWS * height

    def drag(self, *pixels, **options):
        self.tab.drag(*(self.place(*pixel) for pixel in pixels), **options)
        return self.look()

    def press(self, key, text=""):
        self.tab.press(key, text)
        return self.look()


@pytest.fixture
def reader(page):
    with opened(page) as tab:
        yield Reader(tab)
        assert tab.console() == []


def assert_tells(seen, samples, number, place):
    """What is seen is the region of a slice, to a hundredth of its interval's width."""
    row, column, height, width = place
    mask = np.zeros((ROWS, COLUMNS))
    mask[row : row + height, column : column + width] = 1
    chain = torch.arange(CHAINS).repeat_interleave(KEEP)
    images = torch.from_numpy(samples[number])[:, None]
    region = Posterior.from_samples(Samples(images, 0, chain)).region(mask)
    lower, upper = region.interval(0.9)
    told = re.fullmatch(r"mean (\S+)90 % (\S+) to (\S+?)(?<=e-\d)(\d+) pixels", seen["told"])
    found = [float(text) for text in told.groups()[:3]]
    expected = [float(value) for value in (region.mean, lower, upper)]
    assert found == pytest.approx(expected, abs=0.01 * float(upper - lower), rel=0)
    assert told[4] == str(height * width)
    assert seen["fields"] == list(map(str, place))
    # Of every panel.
    assert len(seen["boxes"]) == 7
    share = [row / ROWS, column / COLUMNS, height / ROWS, width / COLUMNS]
    for box in seen["boxes"]:
        assert box == pytest.approx(share, abs=0.005)


def test_dragging_shows_the_region_at_once_and_it_stays_over_slices(reader, samples):
    assert reader.look()["boxes"] == []
    # Before the mouse is let go of.
    assert_tells(reader.drag((10, 8), (12, 12), (17, 19), drop=False), samples, 0, (10, 8, 8, 12))
    # Backwards, and beyond the image.
    seen = reader.drag((20, 15), (15, 12), (-9, 3))
    assert_tells(seen, samples, 0, (0, 3, 21, 13))
    assert seen["large"] == 0
    for number in (1, 2):
        seen = reader.press("ArrowRight")
        assert seen["label"] == f"slice {number + 1} of {SLICES}"
        assert_tells(seen, samples, number, (0, 3, 21, 13))
    seen = reader.press("Escape")
    assert (seen["boxes"], seen["fields"]) == ([], [""] * 4)
    assert "drag over an image" in seen["told"]


def test_numbers_are_typed_and_taken_within_the_image(reader, samples):
    reader.tab.run("find('.region input').focus();")
    for text in ("5", "7", "200", "4"):
        for digit in text:
            reader.press(digit, digit)
        # No slice is gone to while one writes.
        assert reader.press("ArrowLeft")["label"] == f"slice 1 of {SLICES}"
        reader.tab.run(
            "const all = [...document.querySelectorAll('.region input')];"
            "(all[all.indexOf(document.activeElement) + 1] ?? document.body).focus(); document.activeElement.blur;"
        )
    reader.tab.run("document.activeElement.blur();")
    assert_tells(reader.look(), samples, 0, (5, 7, 35, 4))
    # With one of them gone there is no region.
    reader.tab.run(
        "const field = find('.region input'); field.value = '';"
        "field.dispatchEvent(new Event('input', { bubbles: true }));"
    )
    assert reader.look()["boxes"] == []


def test_a_click_enlarges_and_pointing_shows_values_with_a_region_as_without(reader, samples):
    mean = np.abs(samples[0].mean(axis=0))
    before = reader.look()
    reader.drag((12, 10), (18, 16))
    seen = reader.drag((30, 12))
    assert seen["large"] == 1
    assert seen["picture"][2] > 1.5 * before["picture"][2]
    assert_tells(seen, samples, 0, (12, 10, 7, 7))
    assert float(seen["values"][0]) == pytest.approx(mean[30, 12], rel=0.01)
    # An enlarged one has finer places.
    assert_tells(reader.drag((2, 3), (9, 30)), samples, 0, (2, 3, 8, 28))
    assert reader.drag((20, 16))["large"] == 0
    # By the key, too.
    reader.drag((2, 3), (9, 30))
    reader.tab.run("find('.picture').focus();")
    assert reader.press("Enter", "\r")["large"] == 1


def test_a_finger_draws_sideways_and_scrolls_downwards(reader, samples):
    reader.tab.resize(390, 600)
    finger = [reader.place(10, column) for column in (4, 9, 14)] + [reader.place(15, 20)]
    reader.tab.swipe(*finger)
    assert_tells(reader.look(), samples, 0, (10, 4, 6, 17))
    start = reader.place(35, 10)
    reader.tab.swipe(start, *((start[0], start[1] - 20 * n) for n in range(1, 8)))
    seen = reader.look()
    assert seen["scrolled"] > 0
    assert seen["fields"] == ["10", "4", "6", "17"]


def test_blocks_are_taken_whole(tmp_path, samples, monkeypatch):
    monkeypatch.setattr(region_samples, "MOST_CHARACTERS", SLICES * CHAINS * KEEP * 14 * 11 * 8 // 3)
    path = write_sampled(tmp_path / "a.posterior.h5", samples, chains=CHAINS)
    assert main(["posterior", str(path), "--html", str(tmp_path / "a.html")]) == 0
    with opened(tmp_path / "a.html") as tab:
        reader = Reader(tab)
        assert_tells(reader.drag((10, 8), (17, 19)), samples, 0, (9, 6, 9, 15))
        # The last are cut.
        assert_tells(reader.drag((37, 29), (39, 31)), samples, 0, (36, 27, 4, 5))
        assert "blocks of 3×3 pixels" in tab.run("seen.text = document.body.innerText;")["text"]
        assert tab.console() == []
