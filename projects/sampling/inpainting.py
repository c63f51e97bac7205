"""Beyond MRI: the same energy, MAP and sampler for an image of which most pixels are missing.

    python -m projects.sampling.inpainting projects/sampling/results

An operator is anything with forward, adjoint and normal, and energies add. Here A keeps every second pixel of a
synthetic brain, at random; the prior is the energy that comes with the package, alone and with a second one that asks
for smoothness. Writes inpainting.md and inpainting.png.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from direct_deepen import Posterior, QuadraticEnergy, langevin, load_pretrained, mm_map
from direct_deepen.data.phantom import brain_volume
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.pictures import Picture
from direct_deepen.pages.plots import plot_comparison
from direct_deepen.physics.noise import complex_normal
from direct_deepen.priors import SumEnergy

ETA = 0.007
KEPT = 0.5


class Inpainting:
    """Ax = mx."""

    def __init__(self, mask: torch.Tensor) -> None:
        self.mask = mask

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return Ax."""
        return self.mask * image

    adjoint = forward
    normal = forward


class Smoothness:
    """½‖Gx‖², G the differences of neighbours: an analytic energy needs its value and gradient, no more."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return E(x)."""
        return self.value_and_grad(image)[0]

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x)."""
        value = image.real.new_zeros(len(image))
        gradient = torch.zeros_like(image)
        for dimension in (1, 2):
            difference = image.roll(-1, dimension) - image
            value = value + 0.5 * difference.abs().square().sum(dim=(1, 2))
            gradient = gradient + difference.roll(1, dimension) - difference
        return value, gradient


def main() -> None:
    """Inpaint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    results.mkdir(parents=True, exist_ok=True)
    image = brain_volume(np.random.default_rng(7), num_slices=1, size=64, num_coils=4).image
    truth = torch.from_numpy(np.abs(image)).to(torch.complex64)
    # Brains lie in about [0, 1] where the energy was trained.
    truth = truth / truth.abs().max()
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(truth.shape, generator=generator) < KEPT).float()
    A = Inpainting(mask)
    data = A.forward(truth + ETA * complex_normal(truth.shape, generator=generator))
    learned, smooth = load_pretrained("brain_phantom_2d4x"), Smoothness()
    assert isinstance(learned, QuadraticEnergy)

    start = mm_map(A, data, SumEnergy([(0.01, smooth)]), init=data).image
    images = {
        "measured": data,
        "smooth": start,
        "deepen_map": mm_map(A, data, learned, init=start).image,
        "deepen + smooth": mm_map(A, data, SumEnergy([(1.0, learned), (0.002, smooth)]), init=start).image,
    }
    samples = langevin(
        A, data, learned, noise_std=2**0.5 * ETA, num_samples=16, num_steps=200, keep=4, init=images["deepen_map"],
        preconditioner=0.3, generator=generator,
    )  # fmt: skip
    posterior = Posterior.from_samples(samples)
    images["deepen_mmse"] = posterior.mean
    lines = ["| image | PSNR (dB) | SSIM |", "|---|---|---|"]
    for name, found in images.items():
        score = quality(found[0], truth[0])
        lines.append(f"| {name} | {score.psnr:.2f} | {score.ssim:.3f} |")
    missing = mask[0] == 0
    error = (posterior.mean[0].abs() - truth[0].abs()).abs()
    lines += [
        "",
        f"{(1 - KEPT):.0%} of the pixels missing. Mean standard deviation over mean absolute error (1.25 for Gaussian "
        "errors of that size) where they are: "
        f"{float(posterior.std[0][missing].mean() / error[missing].mean()):.2f}, elsewhere "
        f"{float(posterior.std[0][~missing].mean() / error[~missing].mean()):.2f}.",
    ]
    (results / "inpainting.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    titles = {"smooth": "smoothness alone", "deepen + smooth": "DEEPEN + smoothness, MAP"}
    shown = {titles.get(name, name): found[0].abs() for name, found in images.items()}
    plot_comparison([Picture("brain", truth[0].abs(), shown, {})], results / "inpainting.png")


if __name__ == "__main__":
    main()
