"""What does an energy make of the border of the field of view? With zeros beyond it, and with the image again.

    direct-deepen phantom runs/border --volumes 1 --slices 4 --seed 3
    python -m projects.quality.border runs/border

The weights of phantoms, as they were trained (with zeros), on the first slices of a folder of phantoms; each as it is,
and moved by half the field of view, so that the head lies across the border.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from direct_deepen import Chains, LangevinStep, Posterior, SenseOperator, langevin, load_pretrained, mm_map
from direct_deepen.data.cases import Case
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.tables import markdown_table
from direct_deepen.priors.networks import BORDERS
from projects.quality.run import NOISE_STD, load

SLICES = 4


def moved(case: Case) -> Case:
    """Return a slice whose image has gone half the field of view along both axes: a phase in k-space."""
    rows, columns = case.reference.shape[-2:]
    sign = (-1.0) ** (torch.arange(rows)[:, None] + torch.arange(columns))
    maps = case.problem.A.sensitivity_map.roll((rows // 2, columns // 2), dims=(-2, -1))
    A = SenseOperator(maps, case.problem.A.sampling_mask)
    problem = replace(case.problem, A=A, masked_kspace=case.problem.masked_kspace * sign)
    return replace(case, problem=problem, reference=case.reference.roll((rows // 2, columns // 2), dims=(-2, -1)))


def ring(image: torch.Tensor, inner: int, outer: int) -> torch.Tensor:
    """Return the pixels of (height, width) whose distance from the border is ``inner`` to ``outer`` − 1."""
    rows, columns = (torch.arange(size) for size in image.shape)
    distance = torch.minimum(
        torch.minimum(rows, rows.flip(0))[:, None].expand_as(image), torch.minimum(columns, columns.flip(0))
    )
    return image[(distance >= inner) & (distance < outer)]


def main() -> None:
    """Print a row for every border and place of the head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    energy, rows = load_pretrained("brain_phantom_2d4x"), []
    for place, change in (("as it is", lambda case: case), ("moved", moved)):
        cases = [change(case) for case in load(args.data)[:SLICES]]
        for border in BORDERS:
            energy.border = border
            figures = []
            for number, case in enumerate(cases):
                A, b = case.problem.A, case.problem.masked_kspace
                image = mm_map(A, b, energy).image
                samples = langevin(
                    A, b, energy, noise_std=NOISE_STD, init=image, chains=Chains(16, 100, 10),
                    step=LangevinStep(averaged_noise=True), generator=torch.Generator().manual_seed(number),
                )  # fmt: skip
                std = Posterior.from_samples(samples).std[0]
                ratio = float(ring(std, 0, 1).mean() / ring(std, 2, 5).mean())
                figures.append((quality(image[0], case.reference[0]).psnr, ratio))
            psnr, ratio = torch.tensor(figures).mean(dim=0).tolist()
            rows.append({"head": place, "border": border, "MAP (dB)": psnr, "std at the border / 2 to 4 within": ratio})
    print(markdown_table(rows, dict.fromkeys(("MAP (dB)", "std at the border / 2 to 4 within"), ".2f")))


if __name__ == "__main__":
    main()
