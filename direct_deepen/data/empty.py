"""Slices without a signal: a prior learns nothing from them, and there is nothing to divide intensities by."""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from direct.data.datasets import CMRxReconDataset, FakeMRIBlobsDataset, SheppLoganDataset
from direct.data.h5_data import H5SliceData

from direct_deepen.data.batch import SMALLEST, NamedSlices
from direct_deepen.data.volumes import Volumes
from direct_deepen.errors import require

_logger = logging.getLogger("direct_deepen")


def without_empty(dataset: Any, key: str, volume: str | None = None) -> NamedSlices:
    """Return a dataset of DIRECT without its empty slices; how many they are is told once, and where.

    A :class:`DeepenError` that names ``key``, where the dataset is configured, if all are. If only files of one name
    are wanted, it is the ``volume`` that is told of.
    """
    empty = _empty_told(dataset, key, "are left out", volume)
    return NamedSlices(dataset, frozenset(empty))


def with_empty(dataset: Any, key: str) -> NamedSlices:
    """Return a dataset of DIRECT that says which slices are empty, without the volumes that are so altogether.

    What is told and raised is that of :func:`without_empty`.
    """
    return MarkedSlices(dataset, _empty_told(dataset, key, "are written as zero; volumes of such slices only are not"))


class MarkedSlices(NamedSlices):
    """Slices of which ``is_empty`` tells whether they are; if so, the rest but their number is of the next that is not.

    DIRECT's transforms fail on empty slices, but size and mask are those of all slices of a volume.
    """

    def __init__(self, dataset: Any, empty: set[int]) -> None:
        volumes = [set(indices) for indices in dataset.volume_indices.values()]
        super().__init__(dataset, frozenset[int]().union(*(indices for indices in volumes if indices <= empty)))
        full = [indices - empty for indices in volumes for _ in indices]
        self._shown = [min(full[kept], key=lambda other: abs(other - kept)) for kept in self.kept]

    def __getitem__(self, index: int) -> dict[str, Any]:
        kept, shown = self.kept[int(index)], self._shown[int(index)]
        sample = super().__getitem__(self.kept.index(shown))
        return {**sample, "slice_no": sample["slice_no"] + kept - shown, "is_empty": kept != shown}


def _empty_told(dataset: Any, key: str, fate: str, volume: str | None = None) -> set[int]:
    wanted = {path: set(i) for path, i in dataset.volume_indices.items() if volume in (None, Path(path).name)}
    empty = empty_slices(dataset) & set().union(*wanted.values())
    if empty:
        counts = {path: (len(empty & indices), len(indices)) for path, indices in wanted.items()}
        where = ", ".join(
            f"{path} ({'all' if count == of else f'{count} of'} {of})" for path, (count, of) in counts.items() if count
        )
        total = sum(of for _, of in counts.values())
        message = f"{key}: {len(empty)} of {total} slices hold no signal"
        require(len(empty) < total, f"{message}; allowed: volumes with samples of {SMALLEST:g} and more")
        _logger.warning("%s, and %s: %s.", message, fate, where)
    return empty


def of_equal_shape(slices: NamedSlices) -> list[NamedSlices]:
    """Return slices apart by coils, sizes of k-space and image, and whether there is a header: they make no batch."""
    dataset, kinds = slices.dataset, dict[Any, set[int]]()
    if not isinstance(dataset, H5SliceData):
        return [slices]
    layouts = dataset.layouts if isinstance(dataset, Volumes) else {}
    for path, indices in dataset.volume_indices.items():
        size = layouts[Path(path)].reconstruction if layouts else None
        with h5py.File(path) as file:
            kinds.setdefault((file["kspace"].shape[1:], "ismrmrd_header" in file, size), set()).update(indices)
    if len(kinds) <= 1:
        return [slices]
    kept = set(slices.kept)
    others = [frozenset(range(len(dataset))) - kept.intersection(kind) for kind in kinds.values() if kept & kind]
    return [NamedSlices(dataset, left_out) for left_out in others]


def empty_slices(dataset: Any) -> set[int]:
    """Return the indices of the slices of a dataset whose largest sample is below what single precision can square."""
    if isinstance(dataset, SheppLoganDataset):
        # DIRECT fills them with rounding errors, lest a division by zero.
        return {index for index in range(len(dataset)) if not dataset.sample_image(index).any()}
    if isinstance(dataset, FakeMRIBlobsDataset):
        transform, dataset.transform = dataset.transform, None
        try:
            return {index for index in range(len(dataset)) if _is_empty(dataset[index]["kspace"])}
        finally:
            dataset.transform = transform
    if not isinstance(dataset, H5SliceData | CMRxReconDataset):
        return set()
    if isinstance(dataset, Volumes):
        places = {(Path(path), number): index for index, (path, number) in enumerate(dataset.data)}
        empty = {(path, number) for path, layout in dataset.layouts.items() for number in layout.empty_slices}
        return {places[place] for place in empty & set(places)}
    key, numbers = getattr(dataset, "kspace_key", "kspace"), dict[Path, dict[int, int]]()
    for index, (path, number) in enumerate(dataset.data):
        numbers.setdefault(Path(path), {})[number] = index
    return {by_number[number] for path, by_number in numbers.items() for number in _empty_in_file(path, key, by_number)}


def _empty_in_file(path: Path, key: str, numbers: Any) -> list[int]:
    """Return which slices of a file are empty; a slice is read as a whole only if its centre holds nothing."""
    with h5py.File(path) as file:
        kspace = file[key]
        # CMRxRecon's slices are counted over two axes.
        axes = 2 if kspace.dtype.names and kspace.ndim == 5 else 1
        empty = []
        for number in numbers:
            index = np.unravel_index(number, kspace.shape[:axes])
            centre = tuple(size // 2 for size in kspace.shape[axes:-1])
            if kspace.size and _is_empty(kspace[index + centre]) and _is_empty(kspace[index]):
                empty.append(number)
    return empty


def _is_empty(kspace: np.ndarray) -> bool:
    parts = [kspace[name] for name in kspace.dtype.names] if kspace.dtype.names else [kspace]
    # What is not finite or no number is no empty slice, but told of where it is read.
    return all(np.issubdtype(part.dtype, np.number) and bool((np.abs(part) < SMALLEST).all()) for part in parts)
