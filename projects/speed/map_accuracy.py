"""How far from the minimum MAP ends that has an accuracy as its rule: results/map_accuracy.csv.

python -m projects.speed.map_accuracy --output projects/speed/results

MAP with the weights that come with the package, on phantoms that training never saw. Accuracies and distances are root
mean squares over the components of an image, in units of η; counts depend on the machine by rounding alone.
"""

import statistics
from dataclasses import replace

from direct_deepen import Stopping, mm_map
from direct_deepen.data.cases import Case
from direct_deepen.evaluation.metrics import quality
from direct_deepen.priors.energy import DifferentiableEnergy
from projects.speed.map_steps import MINIMUM
from projects.speed.phantoms import NOISE_STD, figures_of_map

ACCURACIES = (1.0, 0.5, 0.2, 0.1, 0.05)
NOISE = NOISE_STD / 2**0.5
"""η."""

NEVER = Stopping(tolerance=1e-12, gradient_tolerance=1e-12)


def distances(case: Case, energy: DifferentiableEnergy) -> dict[str, float]:
    """Return what every accuracy takes of a slice, and where it ends."""
    A, b = case.problem.A, case.problem.masked_kspace
    minimum = mm_map(A, b, energy, stopping=MINIMUM).image
    found = dict[str, float]()
    for accuracy in ACCURACIES:
        result = mm_map(A, b, energy, stopping=replace(NEVER, accuracy=accuracy * NOISE))
        distance = (result.image - minimum).abs().square().mean() / 2
        reached, best = (quality(image[0], case.reference[0]).psnr for image in (result.image, minimum))
        found |= {
            f"gradients_{accuracy:g}": result.gradient_evaluations,
            f"distance_{accuracy:g}": float(distance.sqrt()) / NOISE,
            f"psnr_change_{accuracy:g}": reached - best,
        }
    return found


def main() -> None:
    """Measure every slice; print the means."""
    rows = figures_of_map(__doc__.splitlines()[0], distances, "map_accuracy.csv")
    for name in list(rows[0])[1:]:
        values = [row[name] for row in rows]
        print(f"{name}: {statistics.mean(values):.2f}, at most {max(values, key=abs):.2f}")


if __name__ == "__main__":
    main()
