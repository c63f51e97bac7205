"""DIRECT's dataset of fastMRI volumes, after a look at each: read as they should be, with all masks a file may hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from direct.data.datasets import FastMRIDataset
from direct.data.mri_transforms import ComputeZeroPadding, CreateSamplingMask, EstimateSensitivityMapModule

from direct_deepen.data.inspection import Layout, energies_of, inspect_volume
from direct_deepen.data.missing_samples import measured_samples
from direct_deepen.errors import require


class Volumes(FastMRIDataset):
    """Volumes as DIRECT's dataset reads them, but repaired, and with all the masks that a file may hold."""

    def __init__(self, dataset: FastMRIDataset, layouts: Mapping[Path, Layout]) -> None:
        self.__dict__.update(vars(dataset))
        self.layouts = layouts
        # What DIRECT does after reading is done here, after masks and header.
        self._transform, self.transform = dataset.transform, None
        self._masks, self.pass_mask = uses_masks_of_files(dataset), False
        self.extra_keys = tuple(key for key in dataset.extra_keys or () if key != "ismrmrd_header")
        self._padding = [(step, step.eps) for step in steps_of(dataset) if isinstance(step, ComputeZeroPadding)]

    def get_slice_data(self, filename: Path, slice_no: int, key: str = "kspace", **options: Any) -> tuple[Any, Any]:
        """Return k-space of a slice, repaired, and what DIRECT reads besides."""
        found, extra = super().get_slice_data(filename, slice_no, key=key, **options)
        known = self.layouts.get(Path(filename)) if key == "kspace" else None
        return found if known is None else known.repaired(found), extra

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        layout, shape = self.layouts[Path(sample["filename"])], sample["kspace"].shape[-2:]
        first, end = layout.columns
        sample |= {"padding_left": first, "padding_right": end}
        sample |= {"encoding_size": layout.encoded, "reconstruction_size": layout.reconstruction}
        sample["field_of_view"] = layout.field_of_view
        # DIRECT leaves all attributes of a file without `max`, which makes no batch with another.
        sample.pop("attrs", None)
        sample["kspace"] = sample["kspace"].copy()
        sample["kspace"][..., :first] = sample["kspace"][..., end:] = 0
        stored = sample.pop("mask", None)
        if self._masks:
            if layout.zeros_are_mask:
                mask: np.ndarray | None = measured_samples(energies_of(sample["kspace"]).sum(axis=0))
            else:
                mask = None if stored is None else layout.mask(stored, sample["slice_no"], shape)
            assert mask is not None  # it was looked at
            columns = np.arange(shape[1])
            mask = mask & (first <= columns) & (columns < end)
            sample["sampling_mask"], sample["acs_mask"] = (m[None, ..., None] for m in (mask, _calibration(mask)))
        for step, configured in self._padding:
            step.eps = 1e-30 if layout.faint and configured is not None else configured
        return sample if self._transform is None else self._transform(sample)


def steps_of(dataset: FastMRIDataset) -> list[Any]:
    """Return the transforms of a dataset, one by one."""
    steps = getattr(dataset.transform, "transforms", ())
    return [getattr(step, "_transform", step) for step in steps]


def uses_masks_of_files(dataset: FastMRIDataset) -> bool:
    """Return whether the masks of a dataset are those of its files, and none is drawn over them."""
    return dataset.pass_mask and not any(isinstance(step, CreateSamplingMask) for step in steps_of(dataset))


def _calibration(mask: np.ndarray) -> np.ndarray:
    """Return the largest rectangle about the centre that a mask (row, column) samples fully; of lines, DIRECT's."""
    row, column = (size // 2 for size in mask.shape)
    best = np.zeros_like(mask)
    for count in range(1, 2 * row + 2):
        # Of an odd and of an even number of rows.
        rows = slice(max(0, row - count // 2), row + (count + 1) // 2)
        gaps = np.flatnonzero(~mask[rows].all(axis=0))
        left, right = max(gaps[gaps <= column], default=-1), min(gaps[gaps >= column], default=mask.shape[1])
        rectangle = np.zeros_like(mask)
        rectangle[rows, left + 1 : right] = True
        best = rectangle if rectangle.sum() > best.sum() else best
    return best


def looked_at(dataset: Any, *, undersampled: bool = False) -> Any:
    """Look at every volume of a dataset of DIRECT; return one that reads them as they should be.

    Data are fully sampled, unless they may be ``undersampled``, with masks of the files. Datasets of other formats than
    fastMRI's are returned as they are, and so are stacks of slices and nothing at all, of which DIRECT tells.

    Raises
    ------
    DeepenError
        If a volume cannot be used, or none has a signal; the message names it. What is repaired is logged.
    """
    if not isinstance(dataset, FastMRIDataset) or dataset.ndim != 2 or len(dataset) == 0:
        return dataset
    masks = uses_masks_of_files(dataset)
    calibrated = masks and any(isinstance(step, EstimateSensitivityMapModule) for step in steps_of(dataset))
    layouts = {
        path: inspect_volume(path, masks, undersampled, calibrated)
        for path in sorted(map(Path, dataset.volume_indices))
    }
    empty = [len(layout.empty_slices) == layout.num_slices for layout in layouts.values()]
    require(not all(empty), f"{', '.join(map(str, layouts))}: kspace is zero; allowed: data with a signal")
    return Volumes(dataset, layouts)
