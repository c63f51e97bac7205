"""The slice of a head that the demo reconstructs with the weights of the package: before and after the commands.

    python -m projects.demo.head prepare configs/pretrained_2d4x_posterior.yaml runs/demo/head
    python -m projects.demo.head draw runs/demo/head/posterior.yaml runs/demo/head runs/demo/head_256.png

`prepare` writes FOLDER/images/s1045.npy, for `direct-deepen simulate`, and FOLDER/weights.pt, the weights of the
package as a checkpoint of `direct predict`. `draw` prints PSNR and SSIM of FOLDER/predicted, and draws it. See run.sh.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from PIL import Image

from direct_deepen.data.cases import cases, coil_maps_of, inference_dataset
from direct_deepen.engines.trained import write_pretrained
from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import posterior_quality, quality
from direct_deepen.files import write_file
from direct_deepen.pages.drawing import MOST_UNCERTAIN, brightness_limit, draw_image, figure_file
from direct_deepen.pages.posterior_view import BRIGHTEST
from direct_deepen.posterior.posterior_file import read_posterior

NAME = "s1045"
SIZE = 256
ZOOM, GAP, DPI = 2, 40, 150
"""Pixels of the picture a pixel of the slice, between panels, and an inch."""


def slice_of(content: bytes) -> np.ndarray:
    """Return the magnitudes in a file of matplotlib's, uint16 (row, column); another size is a :class:`DeepenError`."""
    expected = 2 * SIZE**2
    require(len(content) == expected, f"{NAME}.ima.gz: {len(content)} bytes; allowed: {expected}, {SIZE}×{SIZE} of two")
    return np.frombuffer(content, np.dtype("<u2")).reshape(SIZE, SIZE)


def prepare(configuration: Path, folder: Path) -> None:
    """Write the slice and the weights."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with get_sample_data(f"{NAME}.ima.gz") as file:
        np.save(folder / "images" / f"{NAME}.npy", slice_of(file.read()))
    write_pretrained(configuration, folder / "weights.pt")


def draw(configuration: Path, folder: Path, path: Path) -> None:
    """Print how good the reconstruction is, and draw it with its uncertainty, every pixel a square."""
    (case,) = cases(inference_dataset(configuration, folder / "data/test"), coil_maps=coil_maps_of(configuration))
    volume = read_posterior(folder / f"predicted/{NAME}_000.posterior.h5")
    found = volume.arrays
    scaled = {name: np.abs(found[name][0]) / found["scale"][0] for name in ("map", "mean", "std")}
    reference = case.reference[0].abs().numpy()
    zero_filled = case.problem.A.adjoint(case.problem.masked_kspace)[0].abs().numpy()
    images = {"zero-filled": zero_filled, "MAP": scaled["map"], "posterior mean": scaled["mean"]}
    certain = {"reference": reference}
    for name, image in images.items():
        score = quality(torch.from_numpy(image), torch.from_numpy(reference))
        print(f"{name}: PSNR (slice maximum) {score.psnr:.2f} dB, SSIM {score.ssim:.3f}")
        certain[f"{name}, {score.psnr:.1f} dB"] = image
    chains = int(volume.attributes["num_samples"])
    mean, std = torch.from_numpy(scaled["mean"]), torch.from_numpy(scaled["std"])
    spread = posterior_quality(mean, std, case.reference[0], num_chains=chains)
    ratio = spread.std / spread.error
    print(f"standard deviation over |error| {ratio:.2f}; intervals of 90 % hold {spread.coverage_90:.1%} of the object")
    uncertain = {"|error| of the mean": np.abs(scaled["mean"] - reference), "standard deviation": scaled["std"]}
    white, limit = brightness_limit([reference], BRIGHTEST), brightness_limit(uncertain.values(), MOST_UNCERTAIN)
    panels = [(name, image, white, "gray") for name, image in certain.items()]
    panels += [(f"{name}, ×{white / limit:.0f}", image, limit, "inferno") for name, image in uncertain.items()]
    rows, columns = (ZOOM * size for size in reference.shape)
    width, height = 3 * columns + 2 * GAP, 2 * (rows + GAP)
    figure = Figure((width / DPI, height / DPI))
    for number, (title, image, brightest, colours) in enumerate(panels):
        left, bottom = number % 3 * (columns + GAP), (1 - number // 3) * (rows + GAP)
        axes = figure.add_axes((left / width, bottom / height, columns / width, rows / height))
        draw_image(axes, image, brightest, colours)
        axes.set_title(title, fontsize=11, pad=4)
    # Noise in a palette takes a third of the bytes.
    picture = Image.open(BytesIO(figure_file(figure, dpi=DPI))).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(content := BytesIO(), format="PNG", optimize=True)
    write_file(path, content.getvalue())
    print(f"wrote {path}")


def main() -> None:
    """Prepare or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "draw"))
    for name in ("configuration", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("picture", type=Path, nargs="?", default=Path("head_256.png"), help="of draw")
    args = parser.parse_args()
    if args.step == "prepare":
        prepare(args.configuration, args.folder)
    else:
        draw(args.configuration, args.folder, args.picture)


if __name__ == "__main__":
    main()
