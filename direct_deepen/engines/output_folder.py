"""What ``direct predict`` reads and where it writes: no data are lost, and none passed over in silence."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from direct.data.h5_data import H5SliceData
from direct.utils import communication
from direct.utils.dataset import get_filenames_for_datasets

from direct_deepen.data.fastmri_file import is_of_macos, open_volume
from direct_deepen.errors import DeepenError, require
from direct_deepen.files import locked_folder, new_hdf5, require_apart
from direct_deepen.posterior.posterior_file import posterior_path

_OF_DIRECT = {"reconstruction", "sampling_mask", "sampling_masks", "initial_sampling_mask"}
_OF_DIRECT |= {"registration_volume", "displacement_field"}
"""Datasets of the files that DIRECT writes of a prediction."""


_logger = logging.getLogger("direct_deepen")


def tell_passed_over(files: Sequence[Path], datasets: Iterable[Any]) -> None:
    """Warn of files that are no volumes, in the last line of a command."""
    names = sorted({str(path) for path in files})
    if names:
        count = len({*names, *(str(path) for dataset in datasets for path in dataset.volume_indices)})
        text = "%i of %i files not read, as macOS keeps in them what belongs to others: %s."
        _logger.warning(text, len(names), count, ", ".join(names))


def require_all_read(dataset: Any, section: Any, key: str, outputs: Iterable[Path]) -> list[Path]:
    """Raise :class:`DeepenError` with the files that a dataset of DIRECT was to read and passed over, and why.

    ``section`` is its configuration, under ``key``; none of the ``outputs`` may be a folder of volumes. What macOS
    keeps of files on disks that are not its own is no volume, and returned.
    """
    if not isinstance(dataset, H5SliceData):
        return []
    require_apart(outputs, homes_of(dataset.volume_indices))
    asked, pattern = dataset.filenames_filter, section.get("regex_filter")
    if asked is None and section.get("filenames_lists"):
        asked = get_filenames_for_datasets(section.filenames_lists, section.filenames_lists_root, dataset.root)
    files = [Path(name) for name in (dataset.root.glob("*.h5") if asked is None else asked)]
    files = [path for path in files if not pattern or re.match(pattern, str(path))]
    passed_over = sorted(set(files) - set(dataset.volume_indices))
    reasons = [_why_unread(path) for path in passed_over if not is_of_macos(path)]
    require(
        not reasons,
        f"{key}: {len(reasons)} of {len(set(files))} files not read: {'; '.join(reasons)}; allowed: files that can be "
        "read, or lists and filters without these",
    )
    return passed_over


def _why_unread(path: Path) -> str:
    if not path.exists():
        return f"{path}: no such file"
    try:
        with open_volume(path):
            return f"{path}: could not be read"
    except DeepenError as error:
        return str(error)


def homes_of(volumes: Iterable[Path]) -> set[Path]:
    """Return the folders that volumes lie in, and those that they lead to if they are links, as those of a split."""
    return {home for path in volumes for home in (path.parent, path.resolve().parent)}


def require_own_files(folders: Iterable[Path], volumes: Iterable[Path]) -> None:
    """Raise :class:`DeepenError` unless results of volumes can go to folders without the loss of any data.

    DIRECT writes ``<folder>/<name of the volume>``, through links and over what is there: neither a volume may be lost
    that is read, nor one of that name that lies in the folder.
    """
    volumes = list(volumes)
    for folder in folders:
        require_apart([folder], homes_of(volumes))
        for volume in volumes:
            target = folder / volume.name
            require_apart([target, posterior_path(folder, volume)], volumes)
            for path, results in ((target, _OF_DIRECT), (posterior_path(folder, volume), None)):
                other = _data_in(path, results)
                require(other == "", f"{path}: would be overwritten, and holds {other}; allowed: another folder")


def _data_in(path: Path, results: set[str] | None) -> str:
    """Return the name of what a file has besides ``results`` if they are given, else of k-space; nothing if damaged."""
    try:
        with h5py.File(path, "r") as file:
            found = set(file) - results if results is not None else {"kspace"} & set(file)
            return f"`{min(found)}`" if found else ""
    except OSError:
        return ""


def require_volumes(slices: Mapping[Path, int]) -> None:
    """Raise :class:`DeepenError` unless every volume of a dataset has a slice and files of its own."""
    seen: dict[str, Path] = {}
    for path, count in slices.items():
        require(count > 0, f"{path}: k-space of no slices; allowed: one or more")
        # Both the files of DIRECT and ours are named by the last part of the path.
        for name in (path.name, posterior_path(Path(), path).name):
            other = seen.setdefault(name, path)
            require(
                other is path,
                f"{other} and {path} would both be written to {name}; allowed: volumes of different names",
            )


@contextmanager
def locked(folders: Iterable[Path]) -> Iterator[None]:
    """Keep other predictions from folders that this one writes to; of several processes the first does so for all."""
    with ExitStack() as stack:
        if communication.is_main_process():
            for folder in folders:
                stack.enter_context(locked_folder(folder, "direct predict"))
        communication.synchronize()
        yield


def write_reconstruction(path: Path, volume: torch.Tensor, mask: torch.Tensor | None) -> None:
    """Write what DIRECT writes of a volume, in the same words, but whole or not at all, and as soon as it is there."""
    with new_hdf5(path) as file:
        file["reconstruction"] = volume.numpy()[:, 0].astype(np.float32)
        if mask is not None:
            file["sampling_mask"] = mask.numpy()[:, 0].astype(np.float32)
