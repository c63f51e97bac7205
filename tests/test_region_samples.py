"""What a page holds of samples: the regions of Python within a hundredth of their intervals, and not too much."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from sampled_file import draw_samples, write_sampled

from direct_deepen import Posterior
from direct_deepen.inference import Samples
from direct_deepen.pages import region_samples
from direct_deepen.pages.html_page import view_page
from direct_deepen.pages.posterior_view import posterior_view
from direct_deepen.pages.region_samples import read_region_samples
from direct_deepen.posterior.posterior_file import read_posterior, write_posterior

SLICES, CHAINS, KEEP, ROWS, COLUMNS = 2, 4, 3, 23, 18


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Samples whose spread is a hundred times as large in places, as at edges."""
    drawn = draw_samples(SLICES, CHAINS, KEEP, ROWS, COLUMNS)
    mean = drawn.mean(axis=1, keepdims=True)
    factor = np.where(np.random.default_rng(1).random((ROWS, COLUMNS)) < 0.05, 10.0, 0.1)
    return (mean + factor * (drawn - mean)).astype(np.complex64)


@pytest.fixture
def path(tmp_path, samples):
    return write_sampled(tmp_path / "a.posterior.h5", samples, chains=CHAINS)


def of_page(content: dict, number: int, place: tuple[int, int, int, int]) -> tuple[float, float]:
    """Mean and half width that the arrays of a page come to, of a rectangle of whole blocks."""
    part, block = content["slices"][number], content["block"]
    shape = -(-content["rows"] // block), -(-content["columns"] // block)
    mean = np.frombuffer(base64.b64decode(part["mean"]), "<f4").reshape(shape)
    deviations = np.frombuffer(base64.b64decode(part["deviations"]), "<i2").reshape(-1, *shape)

    def average(images: np.ndarray) -> np.ndarray:
        pixels = images.repeat(block, axis=-2).repeat(block, axis=-1)
        return pixels[..., : content["rows"], : content["columns"]][rectangle(place)].mean(axis=(-2, -1))

    values = average(deviations * part["step"])
    return float(average(mean)), content["factor"] * float(values.std(ddof=1))


def rectangle(place: tuple[int, int, int, int]) -> tuple:
    row, column, height, width = place
    return ..., slice(row, row + height), slice(column, column + width)


def of_python(samples: np.ndarray, chains: int, number: int, place: tuple[int, int, int, int]) -> tuple[float, float]:
    images = torch.from_numpy(samples[number])[:, None]
    chain = torch.arange(chains).repeat_interleave(len(images) // chains)
    mask = np.zeros(images.shape[-2:])
    mask[rectangle(place)] = 1
    region = Posterior.from_samples(Samples(images, 0, chain)).region(mask)
    lower, upper = region.interval(0.9)
    return float(region.mean), float(upper - lower) / 2


def random_places(count: int, block: int = 1) -> list[tuple[int, int, int, int]]:
    """Rectangles of whole blocks, every tenth of a single one."""
    generator, places = np.random.default_rng(2), []
    for number in range(count):
        ends = []
        for length in (ROWS, COLUMNS):
            blocks = -(-length // block)
            first = int(generator.integers(blocks))
            last = first + 1 if number % 10 == 0 else int(generator.integers(first + 1, blocks + 1))
            ends.append((first * block, min(length, last * block)))
        (top, bottom), (left, right) = ends
        places.append((top, left, bottom - top, right - left))
    return places


@pytest.mark.parametrize("block", [1, 2, 5])
def test_rectangles_have_the_mean_and_the_interval_of_python(path, samples, monkeypatch, block):
    room = SLICES * CHAINS * KEEP * -(-ROWS // block) * -(-COLUMNS // block) * 8 // 3
    monkeypatch.setattr(region_samples, "MOST_CHARACTERS", room)
    regions = read_region_samples(path)
    content = json.loads(json.dumps(regions.content()))
    assert (content["block"], content["rows"], content["columns"]) == (block, ROWS, COLUMNS)
    assert regions.note == ("" if block == 1 else f"blocks of {block}×{block} pixels")
    for place in random_places(60, block):
        for number in range(SLICES):
            mean, half = of_page(content, number, place)
            expected, width = of_python(samples, CHAINS, number, place)
            # A hundredth of its width at most, either end.
            assert half == pytest.approx(width, rel=0.01), place
            assert mean == pytest.approx(expected, abs=0.01 * width), place


def test_the_samples_of_a_page_have_the_room_that_there_is(path, monkeypatch):
    for room in (3_000, 1_000, 100):
        monkeypatch.setattr(region_samples, "MOST_CHARACTERS", room)
        taken = sum(len(part["deviations"]) for part in read_region_samples(path).content()["slices"])
        # Base64 is filled up to four characters, slice by slice.
        assert taken <= room + 4 * SLICES


@pytest.mark.parametrize(
    ("chains", "keep", "most", "chosen"),
    [(4, 3, 8, [0, 2, 3, 5, 6, 8, 9, 11]), (4, 3, 4, [0, 3, 6, 9]), (6, 1, 3, [0, 2, 5]), (4, 3, 12, list(range(12)))],
)
def test_of_many_samples_equally_many_of_each_chain_are_taken(tmp_path, monkeypatch, chains, keep, most, chosen):
    monkeypatch.setattr(region_samples, "MOST_SAMPLES", most)
    drawn = draw_samples(1, chains, keep, 6, 5)
    regions = read_region_samples(write_sampled(tmp_path / "a.posterior.h5", drawn, chains=chains))
    assert regions.num_chains == min(chains, most)
    saved = chains * keep
    assert regions.note == ("" if len(chosen) == saved else f"{len(chosen)} of {saved} samples")
    (part,) = regions.slices
    images = torch.from_numpy(drawn[0])[:, None]
    posterior = Posterior.from_images(images)
    expected = posterior.in_phase(images[chosen])[:, 0].numpy() - np.abs(drawn[0].mean(axis=0))
    np.testing.assert_allclose(part.deviations * part.step, expected, rtol=0, atol=0.51 * part.step)


def test_a_slice_of_zeros_is_certainly_zero(tmp_path):
    path = write_sampled(tmp_path / "a.posterior.h5", np.full((1, 4, 6, 5), 1e-3, np.complex64), chains=4)
    content = read_region_samples(path).content()
    mean, half = of_page(content, 0, (1, 1, 2, 3))
    assert (mean, half) == (pytest.approx(1e-3), 0.0)


def test_a_page_without_samples_is_as_it_was(tmp_path, path, samples):
    moments = read_posterior(path)
    without = tmp_path / "b.posterior.h5"
    slices = [{name: array[number] for name, array in moments.arrays.items()} for number in range(SLICES)]
    write_posterior(without, slices, SLICES, {"num_samples": CHAINS, "quantile_probabilities": [0.05, 0.95]})
    single = write_sampled(tmp_path / "c.posterior.h5", samples, chains=1)
    for file in (without, single):
        assert read_region_samples(file) is None
    page = view_page(posterior_view(read_posterior(without)))
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert json.loads(data)["regions"] is None
    assert '<form class="region"' not in page
    assert '<i class="box">' not in page


def test_a_page_says_what_was_left_out(path, monkeypatch):
    monkeypatch.setattr(region_samples, "MOST_SAMPLES", 4)
    page = view_page(posterior_view(read_posterior(path), regions=read_region_samples(path)))
    assert "<dt>intervals of regions</dt><dd>not calibrated: may hold less than they say; 4 of 12 samples</dd>" in page
    assert '<form class="region"' in page


def test_quantiles_below_zero_are_shown_as_zero(path):
    volume = read_posterior(path)
    assert volume.arrays["quantiles"].min() < 0
    panels = posterior_view(volume).panels
    assert min(panel.images.min() for panel in panels) == 0
