"""The phantoms, which training never saw, that scripts of this page measure on, and the weights that they measure."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from direct_deepen import load_pretrained
from direct_deepen.data.cases import Case, cases, inference_dataset
from direct_deepen.data.phantom import write_phantoms
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.priors.energy import DifferentiableEnergy
from direct_deepen.progress import progress_bar

CONFIGURATION = Path("configs/pretrained_2d4x.yaml")
WEIGHTS = "brain_phantom_2d4x"
"""That come with the package."""

NOISE_STD = 0.01
"""ε of these weights."""


def phantom_parser(description: str, *, data: Path, slices: int) -> argparse.ArgumentParser:
    """Return a parser of where to write, and of what is measured on."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, default=Path("projects/speed/results"))
    # Masks follow from the path of the data.
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--volumes", type=int, default=5)
    parser.add_argument("--slices", type=int, default=slices)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--coils", type=int, default=8)
    return parser


def phantom_cases(arguments: argparse.Namespace, configuration: Path = CONFIGURATION) -> list[Case]:
    """Write phantoms, and return their slices as problems with a reference."""
    write_phantoms(
        arguments.data, num_volumes=arguments.volumes, num_slices=arguments.slices, size=arguments.size,
        num_coils=arguments.coils, seed=3,
    )  # fmt: skip
    return list(cases(inference_dataset(configuration, arguments.data)))


def figures_of_map(
    description: str, measure: Callable[[Case, DifferentiableEnergy], dict[str, float]], file_name: str
) -> list[dict[str, Any]]:
    """Measure what MAP with these weights does to every slice, write a table of it, and return its rows."""
    arguments = phantom_parser(description, data=Path("runs/speed/map"), slices=2).parse_args()
    energy, found = load_pretrained(WEIGHTS), phantom_cases(arguments)
    rows = [
        {"case": f"{case.volume}#{case.slice_number}"} | measure(case, energy)
        for case in progress_bar(found, name="slices", unit="slice", total=len(found))
    ]
    write_csv(arguments.output / file_name, rows)
    return rows
