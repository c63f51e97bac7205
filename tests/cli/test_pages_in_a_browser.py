"""Pages that the commands write, in a real browser: what is shown of every slice are the numbers of the files."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tiny_direct
from browser import visit
from matplotlib import colormaps

pytestmark = pytest.mark.slow

SLICES = 3
SCROLL = """
  const pixels = (image) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const data = [...context.getImageData(0, 0, canvas.width, canvas.height).data];
    // Of drawings a number that tells them apart.
    if (data.length > 10000) return data.reduce((sum, value) => (31 * sum + value) % 1000003, 7);
    return data.filter((_, position) => position % 4 < 3);
  };
  const shown = () => images().map((image) => ({
    title: image.closest(".panel").querySelector("figcaption span").textContent,
    description: image.alt,
    shape: [image.naturalHeight, image.naturalWidth],
    visible: image.getBoundingClientRect().width > 20,
    pixels: pixels(image),
  }));
  seen.slices = [];
  seen.labels = [];
  for (;;) {
    await loaded();
    seen.slices.push(shown());
    seen.labels.push(find(".label").textContent);
    if (find(".next").disabled || seen.slices.length > 20) break;
    key("ArrowRight");
  }
  key("ArrowLeft");
  await loaded();
  seen.back = shown();
"""
"""Goes through all slices by the arrow key, and one back at the end."""


def scroll(path):
    """What is shown of every panel, slice by slice; there is no error and no other word of the browser."""
    found = visit(path, SCROLL)
    assert found.console == []
    slices = found.seen["slices"]
    assert found.seen["back"] == slices[-2]
    for label, shown in zip(found.seen["labels"], slices, strict=True):
        assert all(panel["visible"] for panel in shown)
        assert [panel["description"] for panel in shown] == [f"{panel['title']}, {label}" for panel in shown]
    titles = [panel["title"] for panel in slices[0]]
    panels = {title: [shown[number] for shown in slices] for number, title in enumerate(titles)}
    for shown in panels.values():
        # Every picture is another one.
        assert len({str(panel["pixels"]) for panel in shown}) == len(slices)
    return SimpleNamespace(labels=found.seen["labels"], panels=panels)


def assert_shows(shown, images, limit, colours="gray"):
    """The pixels are those of real images (slice, row, column), black at 0 and brightest at the limit."""
    palette = 255 * colormaps[colours](np.linspace(0, 1, 256))[:, :3]
    for panel, image in zip(shown, images, strict=True):
        assert panel["shape"] == list(image.shape)
        numbers = np.rint(255 * np.clip(image / limit, 0, 1)).astype(int)
        found = np.array(panel["pixels"]).reshape(*image.shape, 3)
        # One of 255 steps, of which the colours of a map are up to five apart.
        np.testing.assert_allclose(found, palette[numbers], rtol=0, atol=6)


@pytest.fixture(scope="module")
def volume(study, tmp_path_factory):
    """A volume of three slices, reconstructed with its samples."""
    folder = tmp_path_factory.mktemp("pages")
    data = tiny_direct.write_volumes(folder / "data", ["a"], seed=40, slices=SLICES)
    config = tiny_direct.posterior(tiny_direct.configuration(), save_samples=True)
    prediction = tiny_direct.direct_predict(folder / "prediction", config, data, study.checkpoint)
    return SimpleNamespace(data=data, posterior=prediction / "a.posterior.h5", configuration=prediction / "used.yaml")


def test_the_page_of_a_posterior_shows_the_file_slice_by_slice(tmp_path, volume, run_command):
    path = tmp_path / "posterior.html"
    assert run_command(["posterior", str(volume.posterior), "--html", str(path)]).code == 0
    found = scroll(path)
    assert found.labels == [f"slice {number} of {SLICES}" for number in (1, 2, 3)]
    panels = found.panels
    samples = ["sample 1", "sample 2", "sample 3"]
    expected = ["MAP", "posterior mean", "standard deviation", "5 % quantile", "95 % quantile", *samples]
    assert list(panels) == expected

    with h5py.File(volume.posterior) as file:
        arrays = {name: np.abs(file[name][()]) for name in ("map", "mean", "std", "samples")}
        arrays["quantiles"] = np.maximum(file["quantiles"][()], 0)
    white = np.quantile(arrays["mean"], 0.999)
    assert_shows(panels["MAP"], arrays["map"], white)
    assert_shows(panels["posterior mean"], arrays["mean"], white)
    assert_shows(panels["5 % quantile"], arrays["quantiles"][:, 0], white)
    assert_shows(panels["95 % quantile"], arrays["quantiles"][:, -1], white)
    assert_shows(panels["standard deviation"], arrays["std"], np.quantile(arrays["std"], 0.995), "inferno")
    # The first, the last and one in the middle.
    last = arrays["samples"].shape[1] - 1
    for title, number in zip(samples, (0, round(last / 2), last), strict=True):
        assert_shows(panels[title], arrays["samples"][:, number], white)


def test_the_page_of_a_landscape_shows_another_plane_for_every_slice(tmp_path, study, volume, run_command):
    path = tmp_path / "landscape.html"
    numbers = [str(number + 1) for number in range(SLICES)]
    arguments = ["--cfg", str(volume.configuration), "--data-root", str(volume.data), "--slices", *numbers]
    assert run_command(["landscape", str(study.checkpoint), *arguments, "--html", str(path)]).code == 0
    found = scroll(path)
    assert found.labels == [f"a.h5, slice {number}" for number in numbers]
    drawings = ["energy E", "cost C = ½‖Ax − b‖² + E"]
    assert list(found.panels) == [*drawings, "image", "image where E is least"]
    for title in drawings:
        assert all(min(panel["shape"]) > 200 for panel in found.panels[title])
    cases = study.cases(volume.data, volume.configuration)
    images = np.stack([case.reference[0].abs().numpy() for case in cases])
    assert_shows(found.panels["image"], images, images.max())
