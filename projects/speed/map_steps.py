"""How many gradients and applications of AᴴA the steps of MAP take: results/map_steps.csv.

python -m projects.speed.map_steps --output projects/speed/results

MAP with the weights that come with the package, on phantoms that training never saw: to its stopping rule, and until
the image stays within 0.05 dB of the minimum's. Counts do not depend on the machine.
"""

import argparse
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import torch

from direct_deepen import SenseOperator, Stopping, load_pretrained, mm_map
from direct_deepen.data.cases import Case, cases, inference_dataset
from direct_deepen.data.phantom import write_phantoms
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.priors.energy import DifferentiableEnergy
from direct_deepen.progress import progress_bar

CONFIGURATION = Path("configs/pretrained_2d4x.yaml")
MINIMUM = Stopping(tolerance=1e-8, gradient_tolerance=1e-5, max_iterations=500)
WITHIN = 0.05
"""Decibels from the minimum's image."""


@dataclass
class CountedOperator:
    """A with a count of what it costs, in applications of AᴴA: A alone, or its adjoint, is half of one."""

    operator: SenseOperator
    count: float = 0.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return Ax."""
        self.count += 0.5
        return self.operator.forward(image)

    def adjoint(self, kspace: torch.Tensor) -> torch.Tensor:
        """Return Aᴴy."""
        self.count += 0.5
        return self.operator.adjoint(kspace)

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        """Return AᴴAx."""
        self.count += 1
        return self.operator.normal(image)


@dataclass
class RecordedEnergy:
    """E with the images at which it was asked for."""

    energy: DifferentiableEnergy
    images: list[torch.Tensor] = field(default_factory=list)

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x)."""
        self.images.append(image.clone())
        return self.energy.value_and_grad(image)


def counts(case: Case, energy: DifferentiableEnergy) -> dict[str, float]:
    """Return what MAP of a slice takes."""

    def psnr(image: torch.Tensor) -> float:
        return quality(image[0], case.reference[0]).psnr

    A, b = case.problem.A, case.problem.masked_kspace
    minimum = psnr(mm_map(A, b, energy, stopping=MINIMUM).image)
    operator, recorded = CountedOperator(A), RecordedEnergy(energy)
    result = mm_map(operator, b, recorded)
    gradients = len(recorded.images)
    recorded.images.clear()
    mm_map(A, b, recorded, stopping=MINIMUM)
    far = [number for number, image in enumerate(recorded.images) if abs(psnr(image) - minimum) > WITHIN]
    return {
        "psnr_minimum": minimum,
        "psnr": psnr(result.image),
        "gradients": gradients,
        "normals": operator.count,
        "gradients_within": max(far, default=-1) + 2,
    }


def main() -> None:
    """Count for every slice; print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("projects/speed/results"))
    # Masks follow from the path of the data.
    parser.add_argument("--data", type=Path, default=Path("runs/speed/map"))
    parser.add_argument("--volumes", type=int, default=5)
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--coils", type=int, default=8)
    arguments = parser.parse_args()
    energy = load_pretrained("brain_phantom_2d4x")
    write_phantoms(
        arguments.data, num_volumes=arguments.volumes, num_slices=arguments.slices, size=arguments.size,
        num_coils=arguments.coils, seed=3,
    )  # fmt: skip
    found = list(cases(inference_dataset(CONFIGURATION, arguments.data)))
    rows = [
        {"case": f"{case.volume}#{case.slice_number}"} | counts(case, energy)
        for case in progress_bar(found, name="slices", unit="slice", total=len(found))
    ]
    write_csv(arguments.output / "map_steps.csv", rows)
    names = list(rows[0])[1:]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    print(f"| {' | '.join(f'{statistics.mean(row[name] for row in rows):.2f}' for name in names)} |")


if __name__ == "__main__":
    main()
