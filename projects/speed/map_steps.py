"""How many gradients and applications of AᴴA the steps of MAP take: results/map_steps.csv.

python -m projects.speed.map_steps --output projects/speed/results

MAP with the weights that come with the package, on phantoms that training never saw: to its stopping rule, and until
the image stays within 0.05 dB of the minimum's. Counts depend on the machine by rounding alone.
"""

import statistics
from dataclasses import dataclass, field

import torch

from direct_deepen import SenseOperator, Stopping, mm_map
from direct_deepen.data.cases import Case
from direct_deepen.evaluation.metrics import quality
from direct_deepen.priors.energy import DifferentiableEnergy
from projects.speed.phantoms import figures_of_map

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
    operator, recorded = CountedOperator(A), RecordedEnergy(energy)
    result = mm_map(operator, b, energy)
    minimum = psnr(mm_map(A, b, recorded, stopping=MINIMUM).image)
    far = [number for number, image in enumerate(recorded.images) if abs(psnr(image) - minimum) > WITHIN]
    return {
        "psnr_minimum": minimum,
        "psnr": psnr(result.image),
        "gradients": result.gradient_evaluations,
        "normals": operator.count,
        "gradients_within": max(far, default=-1) + 2,
    }


def main() -> None:
    """Count for every slice; print the means."""
    rows = figures_of_map(__doc__.splitlines()[0], counts, "map_steps.csv")
    names = list(rows[0])[1:]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    print(f"| {' | '.join(f'{statistics.mean(row[name] for row in rows):.2f}' for name in names)} |")


if __name__ == "__main__":
    main()
