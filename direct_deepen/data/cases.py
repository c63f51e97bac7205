"""The problems of a DIRECT configuration's inference dataset, one slice at a time."""

import itertools
import logging
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from direct.common.subsample import build_masking_function
from direct.config.defaults import PhysicsConfig
from direct.data.datasets import build_dataset_from_input
from direct.environment import build_operators, load_dataset_config
from direct.inference import build_inference_transforms
from direct.utils import dict_to_device
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.utils.data import default_collate
from yaml import YAMLError  # type: ignore[import-untyped]

from direct_deepen.data.batch import problem_from_batch, reference_image
from direct_deepen.data.coil_maps import coil_maps_of_batch
from direct_deepen.data.convention import convention_of, in_standard_convention
from direct_deepen.data.direct_options import require_dataset
from direct_deepen.data.empty import without_empty
from direct_deepen.data.fastmri_file import WITHOUT_POSTERIOR_FILES, open_volume, require_masks_of_files, volume_files
from direct_deepen.data.prewhitening import with_prewhitening
from direct_deepen.data.volumes import looked_at
from direct_deepen.errors import DeepenError, first_line, require, require_choice
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.scale import FIELD_OF_VIEW, SCALES

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One slice: its problem and its reference, both in scaled intensities."""

    volume: str
    slice_number: int
    """Number in the file of that name."""
    problem: Problem
    """Operator, data and scale, with a batch of one; its scale takes images to the units of the file."""
    reference: torch.Tensor
    """Coil-combined fully sampled image, complex (1, height, width)."""
    reconstruction_size: tuple[int, int] | None = None
    """Height and width by the header of the file, which ``inference.crop: header`` crops images to."""
    cropped: bool = False
    """Whether that is what is compared of images."""


def inference_dataset(configuration: Path, data_root: Path, *, transforms: Mapping[str, Any] | None = None) -> Any:
    """Build the dataset that ``direct predict`` builds from a configuration and a folder of volumes, masks included.

    Volumes must be fully sampled, as results are compared with references. Masks may also be those of the files, with
    ``transforms.masking: null`` and ``pass_mask: true``. ``transforms`` are keys of ``inference.dataset.transforms`` to
    change, nested as there: another mask, another size.

    Raises
    ------
    DeepenError
        If the configuration or the folder is missing or holds no volume, a volume is undersampled already or lacks a
        mask that is asked for, or a key is wrong.
    """
    require(configuration.is_file(), f"{configuration}: no such file")
    require(data_root.is_dir(), f"{data_root}: no such folder of HDF5 volumes")
    files = volume_files(data_root)
    require(len(files) > 0, f"{data_root}: holds no .h5 file")
    for file in files:
        with open_volume(file) as volume:  # DIRECT passes over files that it cannot read
            shape = volume["kspace"].shape
        require(min(shape) > 0, f"{file}: kspace has shape {shape}; allowed: no axis of length zero")
    try:
        whole = OmegaConf.load(configuration)
        section = whole.inference.dataset
        physics = OmegaConf.merge(OmegaConf.structured(PhysicsConfig), whole.get("physics") or {})
        convention = convention_of(physics.forward_operator, physics.backward_operator)
        defaults = OmegaConf.structured(load_dataset_config(section.name))
        merged = OmegaConf.merge(defaults, section, {"transforms": dict(transforms or {})})
        OmegaConf.resolve(merged)
        require_dataset(merged, "inference.dataset")
        if "regex_filter" in merged:
            merged.regex_filter = WITHOUT_POSTERIOR_FILES + (merged.regex_filter or "")
        masks = merged.transforms.masking
        masking = None if masks is None else build_masking_function(**masks)
        if masking is None:
            require_masks_of_files(merged)
    except DeepenError as error:
        raise DeepenError(f"{configuration}: {error}") from error
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError, YAMLError) as error:
        raise DeepenError(f"{configuration}: inference.dataset: {first_line(error)}") from error
    forward, backward = build_operators(physics)
    engine = SimpleNamespace(forward_operator=forward, backward_operator=backward)
    built = build_inference_transforms(SimpleNamespace(engine=engine), masking, merged)
    built.transforms = [*built.transforms, partial(in_standard_convention, convention=convention)]
    # DIRECT logs every file; a command that reads them twice should not.
    logging.getLogger("FastMRIDataset").setLevel(logging.WARNING)
    dataset = looked_at(build_dataset_from_input(transforms=built, dataset_config=merged, data_root=data_root))
    dataset = with_prewhitening(dataset, OmegaConf.select(whole, "model.prewhitening"))
    # With the data, so that nobody scales them otherwise.
    dataset.intensity_scale = intensity_scale_of(configuration)
    _logger.info("%s: %i volumes, %i slices, with the masks of %s", data_root, len(files), len(dataset), configuration)
    return dataset


def coil_maps_of(configuration: Path) -> str:
    """Return the coil maps of a configuration's predictions, which references need too; DIRECT's models have no key."""
    return str(OmegaConf.select(OmegaConf.load(configuration), "model.coil_maps", default="direct"))


def intensity_scale_of(configuration: Path) -> str:
    """Return what ``model.intensity_scale`` of a configuration is; DIRECT's models have no such key."""
    kind = str(OmegaConf.select(OmegaConf.load(configuration), "model.intensity_scale", default=FIELD_OF_VIEW))
    require_choice(f"{configuration}: model.intensity_scale", kind, SCALES)
    return kind


def cases(
    dataset: Any,
    *,
    volume: str | None = None,
    chosen: Container[int] | None = None,
    coil_maps: str = "direct",
    cache: Path | None = None,
    device: str = "cpu",
) -> Iterator[Case]:
    """Yield the slices of :func:`inference_dataset` that have a signal, volume by volume in the order of their names.

    Those without are counted in one line of the log.

    ``volume`` is the name of a file whose slices alone are wanted; of what there is, ``chosen`` has the numbers, in
    that order from 0, of what is yielded, by default all. ``coil_maps`` and ``cache`` are those of
    :func:`~direct_deepen.data.coil_maps.coil_maps_of_batch`. Intensities are scaled as its configuration says.

    Raises
    ------
    DeepenError
        If there is no such volume, or a slice cannot be read or reconstructed.
    """
    slices = without_empty(dataset, "inference.dataset", volume)
    paths = sorted(path for path in slices.volume_indices if volume in (None, Path(path).name))
    require(len(paths) > 0, f"{volume}: no such volume in the data")
    numbers = itertools.count()
    for path in paths:
        for index in slices.volume_indices[path]:
            if chosen is not None and next(numbers) not in chosen:
                continue
            batch = dict_to_device(default_collate([slices[index]]), device)
            maps = coil_maps_of_batch(batch, coil_maps, cache)
            problem = problem_from_batch(batch, maps, scale_kind=dataset.intensity_scale)
            reference = reference_image(batch, problem)
            ((name, number),) = problem.names
            problem = replace(problem, scale=problem.scale * batch["scaling_factor"])
            # Other files than fastMRI's have no header.
            header = batch.get("reconstruction_size")
            size = None if header is None else (int(header[0]), int(header[1]))
            yield Case(Path(name).name, number, problem, reference, size)
