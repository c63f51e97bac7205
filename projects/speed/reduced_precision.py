"""What convolutions of 16 bits cost a posterior in quality: results/reduced_precision.csv.

python -m projects.speed.reduced_precision --output projects/speed/results

Posterior means of the weights that come with the package, on phantoms that training never saw, from chains driven by
the same noise with convolutions of float32 and of bfloat16.
"""

import statistics
import time
from pathlib import Path

import torch

from direct_deepen import Posterior, langevin, load_pretrained, mm_map
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.priors import ReducedPrecision
from direct_deepen.progress import progress_bar
from projects.speed.phantoms import NOISE_STD, WEIGHTS, phantom_cases, phantom_parser


def main() -> None:
    """Sample every slice in both precisions; print the means of the figures."""
    parser = phantom_parser(__doc__.splitlines()[0], data=Path("runs/speed/data"), slices=4)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    energy = load_pretrained(WEIGHTS)
    energies = {"float32": energy, "bfloat16": ReducedPrecision(energy)}
    rows, found = [], phantom_cases(arguments)
    for number, case in enumerate(progress_bar(found, name="slices", unit="slice", total=len(found))):
        A, b = case.problem.A, case.problem.masked_kspace
        start = mm_map(A, b, energy).image
        for precision, sampled in energies.items():
            begin = time.perf_counter()
            samples = langevin(
                A,
                b,
                sampled,
                noise_std=NOISE_STD,
                num_samples=arguments.chains,
                num_steps=arguments.steps,
                keep=4,
                init=start,
                generator=torch.Generator().manual_seed(number),
            )
            seconds = time.perf_counter() - begin
            posterior = Posterior.from_samples(samples)
            score = quality(posterior.mean[0], case.reference[0])
            figures = {"psnr": score.psnr, "ssim": score.ssim, "std": float(posterior.std.mean())}
            row = {"case": f"{case.volume}#{case.slice_number}", "convolutions": precision}
            rows.append({**row, **figures, "seconds": seconds})
    write_csv(arguments.output / "reduced_precision.csv", rows)
    print("| convolutions | PSNR (dB) | SSIM | mean standard deviation | seconds a slice |\n|---|---|---|---|---|")
    for precision in energies:
        mine = [row for row in rows if row["convolutions"] == precision]
        mean = {key: statistics.mean(row[key] for row in mine) for key in ("psnr", "ssim", "std", "seconds")}
        print(f"| {precision} | {mean['psnr']:.3f} | {mean['ssim']:.4f} | {mean['std']:.5f} | {mean['seconds']:.2f} |")


if __name__ == "__main__":
    main()
