"""The problems of a DIRECT configuration's inference dataset, one slice at a time."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from direct.common.subsample import build_masking_function
from direct.data.datasets import build_dataset_from_input
from direct.data.mri_transforms import build_mri_transforms
from direct.data.transforms import fft2, ifft2
from direct.environment import load_dataset_config
from direct.utils import dict_flatten, remove_keys
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.utils.data import default_collate

from direct_deepen.engines.problem import Problem, problem_from_batch, reference_image
from direct_deepen.errors import DeepenError, require


@dataclass(frozen=True)
class Case:
    """One slice: its problem and its reference, both in scaled intensities.

    Attributes
    ----------
    volume
        Name of the file.
    slice_number
        Number of the slice.
    problem
        Operator, data and scale, with a batch of one.
    reference
        Coil-combined fully sampled image, complex (1, height, width).
    """

    volume: str
    slice_number: int
    problem: Problem
    reference: torch.Tensor


def inference_dataset(configuration: Path, data_root: Path) -> Any:
    """Build the dataset that ``direct predict`` builds from the same two arguments, masks included.

    Raises
    ------
    DeepenError
        If the configuration or the folder is missing or holds no volume, or a key is wrong.
    """
    require(configuration.is_file(), f"{configuration}: no such configuration file")
    require(data_root.is_dir(), f"{data_root}: no such folder of HDF5 volumes")
    require(any(data_root.glob("*.h5")), f"{data_root}: holds no .h5 file")
    try:
        section = OmegaConf.load(configuration).inference.dataset
        merged = OmegaConf.merge(OmegaConf.structured(load_dataset_config(section.name)), section)
        masking = build_masking_function(**merged.transforms.masking)
    except (OmegaConfBaseException, AttributeError) as error:
        message = str(error).splitlines()[0]
        raise DeepenError(f"{configuration}: inference.dataset: {message}") from error
    transforms = build_mri_transforms(
        forward_operator=fft2,
        backward_operator=ifft2,
        mask_func=masking,
        **dict_flatten(remove_keys(merged.transforms, "masking")),
    )
    # DIRECT reports every file at the level of information; a command that reads them twice should not.
    logging.getLogger("FastMRIDataset").setLevel(logging.WARNING)
    try:
        return build_dataset_from_input(transforms=transforms, dataset_config=merged, data_root=data_root)
    except (KeyError, OSError) as error:
        raise DeepenError(f"{data_root}: a file is no fastMRI volume: {error}") from error


def cases(dataset: Any) -> Iterator[Case]:
    """Yield the slices of a dataset, volume by volume."""
    for index in range(len(dataset)):
        batch = default_collate([dataset[index]])
        problem = problem_from_batch(batch)
        ((name, number),) = problem.names
        yield Case(Path(name).name, number, problem, reference_image(batch, problem))
