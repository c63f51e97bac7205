"""Train an energy over (time, row, column) and the same frame by frame, and reconstruct series at eight times.

    python -m projects.volumes.run IMAGES.npz runs/volumes

IMAGES.npz has real slices of hearts, one a name. The last tenth of them is for the test, the tenth before for what is
tuned: the weight of either energy, the λ of SENSE and of total variation along time, where MAP begins. Writes the
energies, results.csv, a row a series and method, denoising.csv, what either energy takes off white noise, and the
images of the test; energies that are there are not trained again. One thread.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.pictures import write_images
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.inference import Stopping, mm_map
from direct_deepen.physics import sense
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.priors import SumEnergy
from direct_deepen.progress import progress_bar
from projects.volumes.cine import Measurement, cine, measured
from projects.volumes.energies import TEMPERATURE, FrameByFrame, new_energy, trained
from projects.volumes.temporal_tv import temporal_tv

WEIGHTS = (0.1, 0.3, 1.0)
"""Candidates of what an energy is multiplied by in MAP."""
REGULARIZATIONS = tuple(float(value) for value in np.geomspace(1e-3, 1e-1, 5))
START = 3e-3
"""λ of the total variation that MAP begins at."""
NOISES = (0.02, 0.05, 0.1)
"""Standard deviations per real component, in scaled intensities, of the noise that energies are tried on."""
TUNED_ON = 1
"""Series that weights and λ are chosen on."""

Method = Callable[[Measurement, float], torch.Tensor]


def scaled(series: torch.Tensor, seed: int) -> torch.Tensor:
    """Return a series in scaled intensities."""
    return measured(series, seed).reference[0]


def energy_of(dimensions: int, path: Path, series: Callable[[], list[torch.Tensor]], num_updates: int) -> Any:
    """Return a trained energy, read from its file if there is one."""
    energy = new_energy(dimensions, 0)
    if not path.is_file():
        begin = time.perf_counter()
        weights = trained(dimensions, series(), num_updates=num_updates).state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"weights": weights, "seconds": time.perf_counter() - begin}, path)
    energy.load_state_dict(torch.load(path, weights_only=True)["weights"])
    return energy.eval()


def by_map(energy: Any, iterations: int) -> Method:
    """Return MAP by an energy as a function of data and the weight of the energy."""

    def method(data: Measurement, weight: float) -> torch.Tensor:
        prior, stopping = SumEnergy([(weight, energy)]), Stopping(max_iterations=iterations)
        start = temporal_tv(data.A, data.masked_kspace, regularization=START)
        return mm_map(data.A, data.masked_kspace, prior, init=start, stopping=stopping).image

    return method


def methods(priors: dict[str, Any], iterations: int) -> dict[str, tuple[Method, tuple[float, ...]]]:
    """Return every method with the candidates of its one number."""
    return {
        "sense": (lambda data, value: sense(data.A, data.masked_kspace, regularization=value), REGULARIZATIONS),
        "temporal_tv": (
            lambda data, value: temporal_tv(data.A, data.masked_kspace, regularization=value),
            REGULARIZATIONS,
        ),
        **{name: (by_map(prior, iterations), WEIGHTS) for name, prior in priors.items()},
    }


def scores(image: torch.Tensor, data: Measurement) -> tuple[float, float]:
    """Return PSNR and SSIM, means over frames."""
    found = [quality(*frames) for frames in zip(image[0], data.reference[0], strict=True)]
    return float(np.mean([each.psnr for each in found])), float(np.mean([each.ssim for each in found]))


def denoised(energy: Any, data: Measurement, noise_std: float) -> dict[str, float]:
    """Return PSNR of the reference with white noise, and of the step along ∇E that is to take it off."""
    noise = complex_normal_like(data.reference, generator=torch.Generator().manual_seed(0))
    noisy = data.reference + noise_std * noise
    _, gradient = energy.value_and_grad(noisy)
    return {"noisy": scores(noisy, data)[0], "denoised": scores(noisy - gradient / TEMPERATURE, data)[0]}


def tuned(method: Method, candidates: tuple[float, ...], data: list[Measurement]) -> float:
    """Return the candidate of the best mean PSNR."""
    return max(candidates, key=lambda value: float(np.mean([scores(method(one, value), one)[0] for one in data])))


def main() -> None:
    """Train, tune and test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, metavar="IMAGES.npz")
    parser.add_argument("output", type=Path)
    parser.add_argument("--updates", type=int, default=400, help="of the weights of either energy (default: 400)")
    parser.add_argument("--iterations", type=int, default=25, help="of MAP, at most (default: 25)")
    parser.add_argument("--test-series", type=int, default=4, metavar="N", help="default: 4")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(args.images) as file:
        slices = [file[name] for name in sorted(file.files)]
    held_out = max(TUNED_ON, len(slices) // 10)

    def training() -> list[torch.Tensor]:
        return [scaled(cine(image, seed), seed) for seed, image in enumerate(slices[: -2 * held_out])]

    energies = {n: energy_of(n, args.output / f"energy_{n}d.pt", training, args.updates) for n in (3, 2)}
    data = [measured(cine(image, 1000 + seed), 1000 + seed) for seed, image in enumerate(slices[-2 * held_out :])]
    priors = {"map_frame_by_frame": FrameByFrame(energies[2]), "map_over_time": energies[3]}
    write_csv(
        args.output / "denoising.csv",
        [{"method": name, "noise_std": noise_std} | denoised(prior, data[0], noise_std)
         for name, prior in priors.items() for noise_std in NOISES],
    )  # fmt: skip
    rows = list[dict[str, Any]]()
    images = [{"reference": one.reference[0]} for one in data[held_out:][: args.test_series]]
    for name, (method, candidates) in methods(priors, args.iterations).items():
        best = tuned(method, candidates, data[:TUNED_ON])
        for number in progress_bar(range(len(images)), name=name, unit="series"):
            one = data[held_out + number]
            begin = time.perf_counter()
            image = method(one, best)
            seconds = time.perf_counter() - begin
            psnr, ssim = scores(image, one)
            rows.append({"series": number, "method": name, "choice": best, "psnr": psnr, "ssim": ssim}
                        | {"seconds": seconds})  # fmt: skip
            images[number][name] = image[0]
            write_images(args.output / f"series_{number}.h5", images[number])
            write_csv(args.output / "results.csv", rows)


if __name__ == "__main__":
    main()
