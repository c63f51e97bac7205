"""Reconstruct simulated radial scans of heads, undersampled, beside CG-SENSE and wavelets with their best choice.

    python -m projects.trajectories.run runs/simulated/test runs/trajectories --volumes 3 --acceleration 4

The folder is of `direct-deepen simulate`: of every volume the middle slice, whose image is the exact reference. Samples
lie on rays, π/2 of their number on a grid over the acceleration, with noise relative to the largest pixel. Coil maps
are ESPIRiT's of the undersampled rays, the same for all. CG-SENSE has the number of iterations, and the wavelets of
sigpy the λ, that are best *by the reference of the very slice*, which no user has; DEEPEN has nothing tuned: the
weights that come along, the noise level given. Writes results.csv and images.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sigpy.mri.app
import torch

from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.pictures import write_images
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.machine import available_cores
from direct_deepen.physics import complex_normal, sense
from direct_deepen.physics.non_cartesian import density_compensation, transform
from direct_deepen.physics.problem import Problem
from direct_deepen.progress import progress_bar
from direct_deepen.scans.arrays import with_trajectory
from direct_deepen.scans.preparation import Choices
from direct_deepen.scans.reconstruction import Method, look_at, pretrained_prior, reconstruct_slice
from direct_deepen.scans.scan import Scan

ITERATIONS = (2, 4, 6, 8, 11, 15, 20, 30, 50)
REGULARIZATIONS = tuple(np.geomspace(1e-4, 1e-1, 7).tolist())


def rays(count: int, samples: int) -> np.ndarray:
    """Return positions (sample, ray, 2) in cycles a pixel, of rays through the centre at equal angles."""
    radius = (np.arange(samples) - samples // 2) / samples
    angles = np.pi * np.arange(count) / count
    return np.stack([radius[:, None] * np.sin(angles), radius[:, None] * np.cos(angles)], axis=-1).astype(np.float32)


def by_wavelets(problem: Problem, regularization: float) -> torch.Tensor:
    """Reconstruct by sigpy with density weights, complex (row, column) in scaled intensities."""
    A: Any = problem.A
    size = A.sensitivity_map.shape[-1]
    app = sigpy.mri.app.L1WaveletRecon(
        problem.masked_kspace[0].numpy(), A.sensitivity_map[0].numpy(), regularization,
        coord=A.trajectory.numpy() * size, weights=density_compensation(A.trajectory, (size, size)).numpy(),
        max_iter=50, show_pbar=False,
    )  # fmt: skip
    return torch.from_numpy(app.run())


def rows_of(
    path: Path, acceleration: float, noise_std: float, seed: int
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Return a row a method, and their images, of the middle slice of a volume."""
    with h5py.File(path) as file:
        number = len(file["simulated_image"]) // 2
        image = torch.from_numpy(file["simulated_image"][number]).to(torch.complex64)
        maps = torch.from_numpy(file["simulated_sensitivity_map"][()]).to(torch.complex64)
    size, eta = image.shape[-1], noise_std * float(image.abs().max())
    trajectory = rays(round(math.pi / 2 * size / acceleration), size)
    samples = transform(image * maps, torch.from_numpy(trajectory).reshape(-1, 2))
    generator = torch.Generator().manual_seed(seed)
    samples = samples + eta * complex_normal(samples.shape, generator=generator, dtype=samples.dtype)
    scan = with_trajectory(Scan(path, "simulated", samples.numpy()[None], matrix=size), trajectory)
    prior = pretrained_prior()
    choices = Choices(noise_std=eta, intensity_scale=prior.intensity_scale)
    prepared = look_at(scan, choices).slice(0)
    problem = prepared.problem
    found = {f"cg_sense {count}": sense(problem.A, problem.masked_kspace, regularization=1e-6, max_iterations=count)[0]
             for count in ITERATIONS}  # fmt: skip
    found |= {f"l1_wavelet {value:.3g}": by_wavelets(problem, value) for value in REGULARIZATIONS}
    arrays = reconstruct_slice(prepared, prior, Method(num_samples=0))
    found["deepen_map"] = torch.from_numpy(arrays["map"]) / problem.scale
    # Simulated maps have a profile that estimated ones leave in the image.
    reference = (image * maps.abs().square().sum(dim=0).sqrt()).abs() / problem.scale
    rows = []
    for name, result in found.items():
        score = quality(result, reference)
        method, _, choice = name.partition(" ")
        rows.append({"volume": path.stem, "method": method, "choice": choice, "psnr": score.psnr, "ssim": score.ssim})
    best = [max((row for row in rows if row["method"] == method), key=lambda row: row["psnr"])
            for method in dict.fromkeys(row["method"] for row in rows)]  # fmt: skip
    images = {row["method"]: found[f"{row['method']} {row['choice']}".strip()] for row in best}
    return best, images | {"reference": reference}


def main() -> None:
    """Write rows and images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes_folder", type=Path, metavar="FOLDER")
    parser.add_argument("output", type=Path)
    parser.add_argument("--volumes", type=int, default=3, metavar="N", help="evenly spread over the names")
    parser.add_argument("--acceleration", type=float, default=4.0)
    parser.add_argument(
        "--noise-std", type=float, default=0.01, help="per real component, over the largest pixel (default: 0.01)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(len(available_cores()))
    paths = sorted(args.volumes_folder.glob("*.h5"))
    chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, args.volumes).round().astype(int)]
    rows = list[dict[str, Any]]()
    for path in progress_bar(chosen, name="radial", unit="slice"):
        found, images = rows_of(path, args.acceleration, args.noise_std, args.seed)
        rows += found
        write_images(args.output / path.stem / "images.h5", images)
        write_csv(args.output / "results.csv", rows)


if __name__ == "__main__":
    main()
