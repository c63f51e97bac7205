"""What a figure of a benchmark shows of a slice, and the files that the images of a run are kept in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch

from direct_deepen.files import new_hdf5

IMAGES, DEVIATIONS, REFERENCES = "images.h5", "std.h5", "references.h5"


@dataclass(frozen=True)
class Picture:
    """What the figures show of one slice, in scaled intensities: magnitudes by row, deviations by method.

    A method that gives two rows, MAP and mean of a posterior, has the images ``<method>_map`` and ``<method>_mmse``.
    """

    case: str
    reference: torch.Tensor
    images: dict[str, torch.Tensor]
    std: dict[str, torch.Tensor]


def write_images(path: Path, images: Mapping[str, torch.Tensor]) -> None:
    """Write magnitudes by name, ``<row>/<slice>``, so that a reader never finds half a file."""
    with new_hdf5(path) as file:
        for name, image in images.items():
            file[name] = image.abs().float().cpu().numpy()


def read_images(paths: Iterable[Path], label: str) -> dict[str, torch.Tensor]:
    """Return one slice of all rows of those of the files that are there."""
    found: dict[str, torch.Tensor] = {}
    for path in paths:
        if path.is_file():
            with h5py.File(path, "r") as file:
                found |= {row: torch.from_numpy(group[label][()]) for row, group in file.items()}
    return found
