"""The phantoms, which training never saw, that scripts of this page measure on, and the weights that they measure."""

import argparse
from pathlib import Path

from direct_deepen.data.cases import Case, cases, inference_dataset
from direct_deepen.data.phantom import write_phantoms

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


def phantom_cases(arguments: argparse.Namespace) -> list[Case]:
    """Write phantoms, and return their slices as problems with a reference."""
    write_phantoms(
        arguments.data, num_volumes=arguments.volumes, num_slices=arguments.slices, size=arguments.size,
        num_coils=arguments.coils, seed=3,
    )  # fmt: skip
    return list(cases(inference_dataset(CONFIGURATION, arguments.data)))
