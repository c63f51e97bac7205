"""Prewhitened samples of DIRECT's datasets, by the covariance of a volume's file, of one file, or of their corners."""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from direct_deepen.data.volumes import Volumes
from direct_deepen.errors import DeepenError, first_line, require
from direct_deepen.files import open_hdf5
from direct_deepen.physics.prewhitening import corner_noise_covariance, noise_covariance, noise_level, prewhitened

IN_FILE, CORNERS = "file", "corners"
COVARIANCE, NOISE = "noise_covariance", "noise"
"""Names of the arrays of a volume's file, (coil, coil) and (coil, samples)."""


def require_source(key: str, source: str | None) -> None:
    """Raise :class:`DeepenError` unless ``source`` says where a covariance is from, or that there is none."""
    require(
        source in (None, IN_FILE, CORNERS) or str(source).endswith(".npy"),
        f"{key} is {source!r}; allowed: null, {IN_FILE}, {CORNERS}, or the path of an array as noise.npy",
    )


def with_prewhitening(dataset: Any, source: str | None) -> Any:
    """Return a dataset of DIRECT whose k-space is prewhitened before all transforms, so before coils are compressed.

    ``source`` is ``file``, ``corners``, the path of an ``.npy`` file, or None for the dataset as it is.
    """
    require_source("model.prewhitening", source)
    if source is None:
        return dataset
    other = copy(dataset)
    if source == IN_FILE:
        known = {str(path): _of_volume(Path(path)) for path in dataset.volume_indices}
    elif source != CORNERS:
        known = dict.fromkeys(map(str, dataset.volume_indices), _of_array_file(Path(source)))
    else:
        known = {}
    # What was looked at has its transforms apart.
    name = "_transform" if isinstance(dataset, Volumes) else "transform"
    setattr(other, name, _Prewhitening(getattr(dataset, name), known))
    return other


class _Prewhitening:
    """A transform of samples after prewhitening, by covariances of their files; by that of their corners if none is."""

    def __init__(self, transform: Callable[[dict[str, Any]], dict[str, Any]], known: dict[str, torch.Tensor]) -> None:
        self._transform, self._known = transform, known

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        kspace = torch.from_numpy(np.ascontiguousarray(sample["kspace"]))
        covariance = self._known[str(sample["filename"])] if self._known else corner_noise_covariance(kspace)
        return self._transform(sample | {"kspace": prewhitened(kspace, covariance).numpy()})


def _of_volume(path: Path) -> torch.Tensor:
    with open_hdf5(path, "volume with its noise") as file:
        found = [name for name in (COVARIANCE, NOISE) if name in file]
        require(
            len(found) == 1,
            f"{path}: holds {' and '.join(found) or 'no noise'}; allowed with model.prewhitening: {IN_FILE}: one of "
            f"the arrays `{COVARIANCE}`, (coil, coil), and `{NOISE}`, (coil, samples)",
        )
        return _covariance(np.asarray(file[found[0]]), found[0] == COVARIANCE, f"{path}: {found[0]}")


def _of_array_file(path: Path) -> torch.Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DeepenError(f"model.prewhitening: {path}: no array: {first_line(error)}") from error
    return _covariance(array, array.ndim == 2 and array.shape[0] == array.shape[1], f"model.prewhitening: {path}")


def _covariance(array: np.ndarray, is_covariance: bool, where: str) -> torch.Tensor:
    require(array.dtype.kind in "fc", f"{where} has type {array.dtype}; allowed: complex numbers")
    values = torch.from_numpy(array)
    try:
        covariance = values if is_covariance else noise_covariance(values)
        noise_level(covariance)
    except DeepenError as error:
        raise DeepenError(f"{where}: {error}") from error
    return covariance
