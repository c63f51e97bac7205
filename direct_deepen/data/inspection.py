"""One look at every volume before anything runs: what of its layout would give wrong results without an error.

Thresholds were set on measured slices of six scans: five heads, 1 to 16 coils, and a knee, 96×96 to 332×640. The
share of the energy in the central disc of k-space is 0.66 to 0.81 there, 0.35 and more with the centre 3 % off, at most
0.016 with it 8 to 10 % off, 0.005 in a partial echo, 0.001 in the corner, 0.05 to 0.13 where one axis is transformed
already; noise alone has 0.004, the share of the area. No sample is zero, and at most 0.7 % are as small as one.

The look reads one coil of every slice and one slice whole: 16 slices of 35 coils of 640×368 take 1.4 s on two cores as
fastMRI stores them, and 8 s in chunks of a slice that are compressed, as all of them are unpacked then.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import torch
from direct.data.datasets import FastMRIDataset
from direct.data.mri_transforms import ComputeZeroPadding, CreateSamplingMask, EstimateSensitivityMapModule
from scipy.ndimage import uniform_filter, uniform_filter1d

from direct_deepen.data.batch import SMALLEST_CALIBRATION
from direct_deepen.data.fastmri_file import open_volume
from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.espirit import KERNEL_WIDTH, calibration_width
from direct_deepen.physics.scale import central_disc

_logger = logging.getLogger(__name__)

_EMPTY = 1e-10
"""Norm of a slice, relative to the largest, below which it holds rounding errors of zeros."""
_NOT_MEASURED = 1e-6
"""Magnitude of a sample, relative to their root mean square, below which it was not measured."""
_OUTSIDE = 1e-6
"""Energy of nearly all samples outside a mask, relative to the median inside, below which they were not measured."""
_CENTRED, _OFF_CENTRE = 0.3, 0.05
"""Share of the energy in the central disc from which the centre of k-space is in the middle; below which it is not."""
_FAR = 0.075
"""Distance of the largest sample from the middle, in cycles per pixel, which makes a share between these two wrong."""
_GAPS_INSIDE, _GAPS = 0.05, 0.2
"""Shares of samples that are missing between others in undersampled data: of the inner half of k-space, and of all.
With twelve bits a number, measured data have 0.02 and 0.06."""
_LOW_LINE, _LOW_SAMPLE = 0.03, 0.01
"""Energy, relative to lines or samples around, below which it is noise that was put where nothing was measured."""
_LOW_LINES, _LOW_SAMPLES = 0.03, 0.2
"""Shares of such lines and samples in undersampled data. Measured data have no line below 0.4 of those around, and 1 %
of the samples of one coil, as noise has; edges that are zero, and a uniform disc without noise, change nothing."""
_LINES_AROUND, _SAMPLES_AROUND = 17, 9
_WHITE = 0.6
"""Share of the energy of such lines in their middle quarter, above which they are the zeros of an object's spectrum."""
_ROUNDED_LINE, _ROUNDED_SAMPLE, _ROUNDED = 1e-8, 1e-6, 1e-14
"""Energy around, relative to the largest, from which lines and samples of zeros were not rounded to them, with twelve
bits a number; and others that are low."""
_PADDING_ENERGY = 1e-4
"""Share of the energy in columns that the header declares to be padding."""
_FAINT, _FAINT_SHARE = 1e-3, 0.01
"""Magnitude, relative to the mean, below which DIRECT may take a sample for padding; share of samples with a signal
below it in data without noise. Measured data have at most 1e-5."""
_DETAIL, _PATCH, _FEWEST_ALIKE, _MOST_ALIKE = 96, 6, 4, 16
"""Samples and pixels of the images and patches in which coils of one slice are alike; numbers of images to compare."""
_UNLIKE, _ONE_SLICE = 2.5, 0.015
"""How much more alike slices than coils are if they seem exchanged; how little slices differ that seem coils of one.
In measured coils 0.9 to 2.8 % of the energy is of no common image, in slices of a head 4 to 24 %, in neighbours 1.7 %.
"""
_MOST_COILS, _FEWEST_SAMPLES = 128, 32
_ROUNDING = 0.03
"""Of a header whose fields of view are rounded, as fastMRI's: pixels of images and of k-space differ by 2 %."""
_CARTESIAN = ("", "cartesian", "epi")
_AXES = "(slice, coil, row, column), or without coils"


@dataclass(frozen=True)
class Layout:
    """How a volume is stored, which says how it is to be read; the defaults are how it should be."""

    num_slices: int
    columns: tuple[int, int] = (0, 0)
    """First column that is not padding, and the one after the last."""
    encoded: tuple[int, int, int] = (0, 0, 1)
    reconstruction: tuple[int, int, int] = (0, 0, 1)
    """Rows, columns and depth of k-space, and of the images it is meant for, by the header or k-space itself."""
    field_of_view: tuple[int, int] = (0, 0)
    """Rows and columns that those images show, in pixels of k-space: without oversampling, and not enlarged."""
    geometry: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Rows and columns of those images, not enlarged, and length of their rows, columns and slices in millimetres."""
    swapped: bool = False
    """Columns come before rows."""
    at_edge: tuple[int, ...] = ()
    """Axes on which the centre of k-space is the first sample."""
    empty_slices: tuple[int, ...] = ()
    zeros_are_mask: bool = False
    """The mask is where k-space is not zero."""
    faint: bool = False
    """Samples with a signal are as small as those that DIRECT takes for padding."""

    def repaired(self, kspace: np.ndarray) -> np.ndarray:
        """Return complex (…, row, column) of any slices and coils as stored."""
        array = as_complex(kspace)
        array = np.ascontiguousarray(np.swapaxes(array, -2, -1)) if self.swapped else array
        return np.fft.fftshift(array, axes=self.at_edge) if self.at_edge else array

    def mask(self, stored: np.ndarray, number: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return where a slice of ``shape`` (row, column), as repaired, was sampled; None if the mask does not fit.

        It is one over columns, or rows and columns, of all slices or each, with or without axes of length one.
        """
        sizes, inside = shape[::-1] if self.swapped else shape, np.asarray(stored) != 0
        candidates = [inside, inside[number]] if inside.ndim > 1 and len(inside) == self.num_slices else [inside]
        for found in candidates:
            rows = found.shape == (sizes[0], 1)
            plane = found if rows else np.squeeze(found)
            if rows or plane.shape in (sizes, sizes[-1:]):
                plane = np.broadcast_to(plane, sizes)
                return np.fft.fftshift(plane.T if self.swapped else plane, axes=self.at_edge)
        return None


def as_complex(kspace: np.ndarray) -> np.ndarray:
    """Return complex numbers of such, or of pairs: two fields, or a last axis of two real or integer numbers."""
    if fields := _fields(kspace.dtype):
        real, imaginary = (kspace[name].astype(np.float32) for name in fields)
    elif kspace.dtype.kind in "fiu" and kspace.shape[-1] == 2:
        real, imaginary = (kspace[..., part].astype(np.float32) for part in (0, 1))
    else:
        return kspace
    return real + 1j * imaginary


def _fields(dtype: np.dtype) -> list[str]:
    """Return the names of the real and the imaginary part of a compound type; none of other types."""
    names = {name[:1].lower(): name for name in dtype.names or ()}
    return [names["r"], names["i"]] if set(names) == {"r", "i"} else []


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
                mask: np.ndarray | None = _sampled(_energies(sample["kspace"]).sum(axis=0))
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


def inspect_volume(
    path: Path, use_mask: bool = False, undersampled: bool = False, calibrated: bool | None = None
) -> Layout:
    """Look at the layout of a volume: number type, header, axes, empty slices, centre, padding, missing samples.

    One coil of every slice is read, and all of one slice; values that are not finite are not looked for. A file is
    looked at once, however often this is called.

    Parameters
    ----------
    use_mask
        Whether the mask of the file is to be used, or where there is none the zeros, if these are certain.
    undersampled
        Whether the file may hold no more than that.
    calibrated
        Whether coil maps are estimated from the centre of the mask; by default if it is used.
    """
    with open_volume(path):
        pass
    status = path.stat()
    needed = use_mask if calibrated is None else calibrated
    return _inspected(path, status.st_size, status.st_mtime_ns, use_mask, undersampled, needed)


@lru_cache(maxsize=10_000)
def _inspected(path: Path, size: int, time: int, use_mask: bool, undersampled: bool, calibrated: bool) -> Layout:
    with open_volume(path) as file:
        try:
            return _Look(path, file).look(use_mask, undersampled, calibrated)
        except DeepenError as error:
            raise DeepenError(f"{path}: {error}") from error


class _Look:
    """A volume while it is looked at."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self.file, self.stored = path, file, file["kspace"]
        self.layout = Layout(0)
        self.with_gaps: list[int] = []
        self.shape: tuple[int, ...] = self.stored.shape
        self.header = Header()

    def look(self, use_mask: bool, undersampled: bool, calibrated: bool) -> Layout:
        """Return the layout of the volume; what is found first ends the look if it cannot be repaired."""
        self._number_type()
        self._header()
        strongest = self._strongest()
        if len(self.layout.empty_slices) == self.layout.num_slices:
            return self.layout
        energies = self._energies(strongest)
        failure = self._centre(energies.sum(axis=0), strongest)
        energies = np.fft.fftshift(energies, axes=self.layout.at_edge) if self.layout.at_edge else energies
        energy = energies.sum(axis=0)
        masks = self._masks(energy.shape, use_mask)
        if not masks and use_mask:
            masks = [self._mask_of_zeros(energies, undersampled)]
        if calibrated:
            self._require_calibration(masks)
        # A mask without a centre looks like a centre elsewhere, so that it is told of first.
        require(failure == "", failure)
        self._require_padding(energy)
        mask = masks[strongest % len(masks)] if masks else None
        self._require_samples(energies, mask, undersampled)
        self._require_order(strongest, undersampled)
        if not undersampled:
            self._require_complete_slices()
        size = np.sqrt(energy)
        faint = (size > _NOT_MEASURED * np.sqrt(energy.mean())) & (size < _FAINT * size.mean())
        if faint[... if mask is None else mask].mean() > _FAINT_SHARE:
            _logger.info("%s: data without noise; padding_eps is not used, only zeros are padding", self.path)
            self.layout = replace(self.layout, faint=True)
        return self.layout

    def _energies(self, number: int, first: bool = False) -> np.ndarray:
        """Energies (coil, row, column) of a slice, repaired as far as is known; of its first coil, or of all."""
        return _energies(self.layout.repaired(self.stored[(number, 0)[: len(self.shape) - 2] if first else number]))

    def _number_type(self) -> None:
        dtype, shape = self.stored.dtype, self.stored.shape
        pairs = dtype.kind in "fiu" and shape[-1] == 2
        require(
            dtype.kind == "c" or pairs or bool(_fields(dtype)),
            f"kspace has type {dtype} and shape {shape}; allowed: complex, or pairs (real, imaginary)",
        )
        self.shape = shape[:-1] if pairs else shape
        require(len(self.shape) in (3, 4), f"kspace has shape {shape}; allowed: {_AXES}")
        require(min(shape) > 0, f"kspace has shape {shape}; allowed: no axis of length zero")
        if dtype.kind != "c":
            _logger.info("%s: kspace is stored as pairs of numbers; read as complex", self.path)

    def _header(self) -> None:
        """Compare the shape with the header, whose x are the rows, the readout, and y the columns."""
        shape, stored = self.shape, self.file.get("ismrmrd_header")
        if self._is_unusual():
            _logger.warning("%s: kspace has the unusual shape %s; expected: %s", self.path, shape, _AXES)
        header = self.header = Header() if stored is None else read_header(stored[()])
        require(
            header.trajectory in _CARTESIAN,
            f"the trajectory of its header is {header.trajectory}; allowed: cartesian, as k-space is taken for a grid",
        )
        swapped = header.encoded is not None and self._is_swapped(header.encoded[:2])
        rows, columns = shape[:-3:-1] if swapped else shape[-2:]
        require(
            min(shape[-2:]) >= SMALLEST_CALIBRATION,
            f"kspace has shape {shape}; allowed: {_AXES}, with {SMALLEST_CALIBRATION} rows and columns or more",
        )
        height, width, depth = header.reconstruction or (rows, columns, 1)
        shown = header.pixels(rows, columns)
        field_of_view = min(shown[0], rows), min(shown[1], columns)
        if height > rows or width > columns:
            _logger.info(
                "%s: its header has images of %i×%i, k-space is %i×%i; they are not enlarged",
                self.path, height, width, rows, columns,
            )  # fmt: skip
            if header.has_lengths:
                height, width = field_of_view
            elif width > columns:
                # DIRECT makes images square then.
                height, width, depth = columns, columns, 1
        maximum, centre = header.limits or (columns - 1, columns // 2)
        first = columns // 2 - centre
        self.layout = Layout(
            shape[0],
            columns=(max(0, first), min(columns, first + maximum + 1)),
            encoded=header.encoded or (rows, columns, 1),
            reconstruction=(min(height, rows), width, depth),
            field_of_view=field_of_view,
            geometry=header.geometry(rows, columns),
            swapped=swapped,
        )

    def _is_unusual(self) -> bool:
        return (len(self.shape) == 4 and self.shape[1] > _MOST_COILS) or min(self.shape[-2:]) < _FEWEST_SAMPLES

    def _is_swapped(self, encoded: tuple[int, ...]) -> bool:
        """Return whether rows and columns are exchanged; any other order of the axes cannot be told for certain."""
        shape = self.shape
        if shape[-2:] == encoded:
            return False
        found = f"kspace has shape {shape}, and its header {encoded[0]} rows (x, readout) and {encoded[1]} columns (y)"
        if shape[-2:] == encoded[::-1]:
            _logger.info("%s: %s; rows and columns are exchanged back", self.path, found)
            return True
        for axes in combinations(range(len(shape)), 2):
            require(
                sorted(shape[axis] for axis in axes) != sorted(encoded),
                f"{found}: these seem to be axes {axes[0]} and {axes[1]} of {len(shape)}; allowed: {_AXES}",
            )
        return False

    def _strongest(self) -> int:
        """Find the slices without signal, and return the strongest one, in which everything else is looked for."""
        numbers = range(len(self.stored))
        # The first coil tells, unless it is broken.
        norms = np.zeros(len(numbers))
        for number in numbers:
            energy = self._energies(number, first=True)
            norms[number] = np.sqrt(energy.sum() or self._energies(number).sum())
            if not self._is_rounded() and energy.any() and _missing(energy).any():
                self.with_gaps.append(number)
        empty = tuple(int(number) for number in np.flatnonzero(norms <= _EMPTY * norms.max()))
        self.layout = replace(self.layout, empty_slices=empty)
        return int(norms.argmax())

    def _centre(self, energy: np.ndarray, number: int) -> str:
        """Look where the centre of k-space is, and return what is wrong if that cannot be repaired."""
        share = _central_share(energy)
        where = f"the largest sample of slice {number} is at {_peak(energy)}, and {share:.1%} of the energy in the "
        where += "central disc of k-space"
        # Of axes in another order the middle coil may seem to be the centre, and of data that are transformed along one
        # axis already, there is much in the middle row.
        distance = np.hypot(*((i - n // 2) / n for i, n in zip(_peak(energy), energy.shape, strict=True)))
        doubtful = self._is_unusual() or distance > _FAR
        if share >= (_CENTRED if doubtful else _OFF_CENTRE):
            if share < _CENTRED:
                _logger.warning("%s: %s; expected: most of it", self.path, where)
            return ""
        for axes in ((-2, -1), (-2,), (-1,)):
            if _central_share(np.fft.fftshift(energy, axes=axes)) >= _CENTRED:
                _logger.info("%s: the centre of k-space is at index 0 of axes %s; moved to the middle", self.path, axes)
                self.layout = replace(self.layout, at_edge=axes)
                return ""
        middle = tuple(size // 2 for size in energy.shape)
        shape = f"kspace has shape {self.shape}; " if self._is_unusual() else ""
        return (
            f"{shape}{where}; allowed: the centre at {middle} of {_AXES}, with zeros for samples that were not measured"
        )

    def _masks(self, shape: tuple[int, ...], needed: bool) -> list[np.ndarray]:
        """Return the file's mask of every slice; none if it has none, or none that fits and it is not needed."""
        stored = self.file.get("mask")
        if not isinstance(stored, h5py.Dataset):
            return []
        content = stored[()]
        masks = [self.layout.mask(content, number, shape) for number in range(self.layout.num_slices)]
        fitting = [mask for mask in masks if mask is not None]
        require(
            len(fitting) == len(masks) or not needed,
            f"mask has shape {stored.shape}; allowed with pass_mask: true: one number a column, shape ({shape[1]},), "
            f"or one a sample, {shape}, of all slices or each",
        )
        return fitting if len(fitting) == len(masks) else []

    def _is_rounded(self) -> bool:
        """Return whether numbers are of few bits, and may be zero where there was a signal."""
        return self.stored.dtype.kind in "iu" or self.stored.dtype == np.float16

    def _mask_of_zeros(self, energies: np.ndarray, undersampled: bool) -> np.ndarray:
        """Take the zeros of k-space for the mask that a file lacks, where measured samples cannot be among them."""
        sampled = _sampled(energies.sum(axis=0))
        certain = bool(_missing(energies).any() and not _missing(energies, sampled).any()) and not self._is_rounded()
        require(
            undersampled and certain,
            f"holds no `mask`; allowed with pass_mask: true: one number a column, shape ({sampled.shape[1]},), or one "
            f"a sample, {sampled.shape}, of all slices or each; or zeros for all samples that were not measured",
        )
        _logger.info(
            "%s: holds no `mask`; it is taken from the zeros, %.0f%% are samples", self.path, 100 * sampled.mean()
        )
        self.layout = replace(self.layout, zeros_are_mask=True)
        return sampled

    def _require_calibration(self, masks: list[np.ndarray]) -> None:
        width = min(
            calibration_width(torch.from_numpy(mask)) for mask in {m.tobytes(): m.copy() for m in masks}.values()
        )
        require(
            width >= SMALLEST_CALIBRATION,
            f"the fully sampled centre of its `mask` is {width} samples wide; allowed: >= {SMALLEST_CALIBRATION}, as "
            f"coil maps are estimated from it (coil_maps: espirit needs {KERNEL_WIDTH}); without one, maps of your own "
            "in Python: SenseOperator(maps, mask)",
        )

    def _require_padding(self, energy: np.ndarray) -> None:
        columns, (first, end) = energy.sum(axis=0), self.layout.columns
        padded = 1 - columns[first:end].sum() / columns.sum()
        require(
            padded <= _PADDING_ENERGY,
            f"{padded:.1%} of the energy is in columns that encodingLimits of the header declare to be padding; "
            f"allowed: signal in columns {first} to {end - 1} alone",
        )

    def _require_order(self, strongest: int, undersampled: bool) -> None:
        """Look whether coils come before slices, by the header; and by what is alike, which makes it only probable."""
        header, slices, coils = self.header, self.shape[0], self.shape[1] if len(self.shape) == 4 else 1
        if slices != coils and (header.channels == coils or header.slices == slices > 1):
            return
        between_slices = between_coils = float("nan")
        if not undersampled:  # or aliasing makes coils differ
            full = [number for number in range(slices) if number not in self.layout.empty_slices]
            first = [(full[place], 0)[: len(self.shape) - 2] for place in _spread(len(full))]
            between_slices = _unlike([self.layout.repaired(self.stored[place]) for place in first])
            between_coils = _unlike(self.layout.repaired(self.stored[strongest])) if coils > 1 else between_coils
        by_channels, by_slices = header.channels == slices > 1, header.slices == coils > 1
        told = f"kspace has shape {self.shape}, "
        known = [f"{n} {name}" for n, name in ((header.channels, "coils"), (header.slices, "slices")) if n]
        require(
            slices == coils
            or not (by_channels or by_slices)
            or (by_channels != by_slices and between_slices > between_coils),
            f"{told}and its header {' and '.join(known)}: axis 0 seems to be the coils; allowed: {_AXES}",
        )
        if between_slices * _UNLIKE < between_coils or (coils == 1 and between_slices < _ONE_SLICE):
            _logger.warning(
                "%s: %sbut its slices are as alike as the coils of one; expected: %s", self.path, told, _AXES
            )

    def _require_complete_slices(self) -> None:
        """Look for samples that are missing in other slices than the strongest."""
        for number in self.with_gaps:
            # Numbers that were rounded are zero in one coil, and seldom in all.
            require(
                not _missing(self._energies(number)).any(),
                f"slice {number} is undersampled already: many of its samples are zero between others, or noise far "
                "below those around; allowed: fully sampled volumes",
            )

    def _require_samples(self, energies: np.ndarray, mask: np.ndarray | None, undersampled: bool) -> None:
        """Look for samples that are missing between others, and whether the mask of the file is why."""
        partly = mask is not None and _ends_with(energies, mask, self._is_rounded())
        require(
            undersampled or not partly,
            "undersampled already: its k-space is zero, or noise far below the rest, outside its `mask`; allowed: "
            "fully sampled volumes, as references and simulated masks need them (`direct predict` takes it with "
            "inference.dataset.pass_mask: true and inference.dataset.transforms.masking: null)",
        )
        missing = _missing(energies, mask if partly else None, self._is_rounded())
        told = "it holds no `mask`" if mask is None else "these are not where its `mask` says"
        require(
            not missing.any(),
            f"undersampled already: {missing.mean():.0%} of its samples are zero between others, or noise far below "
            f"those around, and {told}; allowed: fully sampled volumes (`direct predict` takes the mask from the zeros "
            "if there is none, with inference.dataset.pass_mask: true and inference.dataset.transforms.masking: null)",
        )


@dataclass(frozen=True)
class Header:
    """What an ISMRMRD header says; None of what it does not say."""

    encoded: tuple[int, int, int] | None = None
    reconstruction: tuple[int, int, int] | None = None
    """Matrix sizes x, y, z: rows, columns, depth."""
    limits: tuple[int, int] | None = None
    """Last and central step of the phase encoding."""
    channels: int = 0
    slices: int = 0
    """Numbers of coils and of slices, zero where it does not say."""
    trajectory: str = ""
    lengths: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    """Fields of view of k-space and of the images, x, y, z in millimetres; zero where it does not say."""

    @property
    def has_lengths(self) -> bool:
        """Whether it says how wide rows and columns are, of k-space and of the images."""
        return min(length for lengths in self.lengths for length in lengths[:2]) > 0

    def pixels(self, rows: int, columns: int) -> tuple[int, int]:
        """Return rows and columns of the images' field of view, in pixels of k-space of that size.

        A pixel is field of view over matrix of the encoded space, so that neither images interpolated to more pixels
        nor readout oversampling matter. Zeros around k-space make pixels smaller in the same field of view. Without
        millimetres the matrix of the images is taken for their field of view.
        """
        matrix, sizes = (self.reconstruction or (rows, columns))[:2], (rows, columns)
        if not self.has_lengths:
            return matrix[0], matrix[1]
        found = []
        for whole, seen, size, encoded, images in zip(
            *self.lengths, sizes, self.encoded or sizes, matrix, strict=False
        ):
            # Who has cropped the images, and not the header, has left just that.
            shown = size if size == round(encoded * seen / whole) else round(size * seen / whole)
            found.append(images if abs(shown - images) <= _ROUNDING * images else max(1, shown))
        return found[0], found[1]

    def geometry(self, rows: int, columns: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return rows and columns of the images, and lengths of a row's, column's and slice's pixel in millimetres."""
        sizes, (_, seen) = self.pixels(rows, columns), self.lengths
        enlarged = not self.has_lengths and (sizes[0] > rows or sizes[1] > columns)
        if self.reconstruction is None or min(seen) == 0 or enlarged:
            return None
        matrix = (*sizes, self.reconstruction[2])
        return sizes, tuple(length / size for length, size in zip(seen, matrix, strict=True))


def read_header(stored: Any) -> Header:
    """Read an ISMRMRD header, with or without the namespace; a :class:`DeepenError` if it is none."""
    text = stored.item() if isinstance(stored, np.ndarray) and stored.size == 1 else stored
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise DeepenError(f"ismrmrd_header is no XML ({error}); allowed: an ISMRMRD header, or none") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]

    def numbers(place: str, names: tuple[str, ...]) -> Iterator[int]:
        for name in names:
            found = root.findtext(f"encoding/{place}/{name}")
            if found is not None:
                known = found.strip().isdecimal()
                require(known, f"{place}/{name} of ismrmrd_header is {found!r}; allowed: an integer, or no header")
                yield int(found)

    sizes = [tuple(numbers(f"{space}/matrixSize", ("x", "y", "z"))) for space in ("encodedSpace", "reconSpace")]
    lengths = [
        tuple(_length(root.findtext(f"encoding/{space}/fieldOfView_mm/{axis}")) for axis in "xyz")
        for space in ("encodedSpace", "reconSpace")
    ]
    limits = tuple(numbers("encodingLimits/kspace_encoding_step_1", ("maximum", "center")))
    channels = _number(root.findtext("acquisitionSystemInformation/receiverChannels"))
    last = _number(root.findtext("encoding/encodingLimits/slice/maximum"))
    encoded, reconstruction = ((x[0], x[1], x[2]) if len(x) == 3 else None for x in sizes)
    return Header(
        encoded,
        reconstruction,
        (limits[0], limits[1]) if len(limits) == 2 else None,
        channels,
        last + 1 if last else 0,
        (root.findtext("encoding/trajectory") or "").strip().lower(),
        (lengths[0], lengths[1]),
    )


def _number(text: str | None) -> int:
    """Return a number that nothing rests on, or zero."""
    found = (text or "").strip()
    return int(found) if found.isdecimal() else 0


def _length(text: str | None) -> float:
    """Return a length that is finite and above zero, and else zero: many headers leave it out, or empty."""
    try:
        length = float(text or 0)
    except ValueError:
        return 0
    return length if 0 < length < float("inf") else 0


def _energies(kspace: np.ndarray) -> np.ndarray:
    """Energies (coil, row, column) of k-space (…, row, column), where what is not finite counts as zero."""
    kspace = np.nan_to_num(kspace, posinf=0, neginf=0).astype(np.complex128)
    return (np.abs(kspace) ** 2).reshape(-1, *kspace.shape[-2:])


def _spread(count: int) -> list[int]:
    """Return as many numbers below a count as are compared, evenly."""
    return [int(place) for place in np.linspace(0, count - 1, min(count, _MOST_ALIKE))]


def _unlike(kspace: Sequence[np.ndarray] | np.ndarray) -> float:
    """Return the share of the energy of images that is not one image times weights, which differ from patch to patch.

    Not a number if there are few images, or no signal.
    """
    if len(kspace) < _FEWEST_ALIKE:
        return float("nan")
    images = np.stack([np.nan_to_num(kspace[number], posinf=0, neginf=0) for number in _spread(len(kspace))])
    sizes = [min(size, _DETAIL) // _PATCH * _PATCH for size in images.shape[-2:]]
    middle = tuple(slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(images.shape[-2:], sizes, strict=True))
    images = np.fft.ifft2(np.fft.ifftshift(images[:, *middle], axes=(-2, -1)))
    patches = images.reshape(-1, sizes[0] // _PATCH, _PATCH, sizes[1] // _PATCH, _PATCH).transpose(1, 3, 0, 2, 4)
    energy = np.linalg.svd(patches.reshape(-1, len(images), _PATCH**2), compute_uv=False) ** 2
    return float(1 - energy[:, 0].sum() / energy.sum()) if energy.any() else float("nan")


def _sampled(energy: np.ndarray) -> np.ndarray:
    return energy > _NOT_MEASURED**2 * energy.mean()


def _ends_with(energies: np.ndarray, mask: np.ndarray, rounded: bool) -> bool:
    """Return whether there is nothing outside a mask, but for what a lossy compression leaves, or a little noise."""
    energy = energies.sum(axis=0)
    if mask.all() or not energy[mask].any():
        return False
    inside = energy[mask]
    if np.quantile(energy[~mask], 0.99) <= _OUTSIDE * np.median(inside[inside > 0]):
        return True
    return not rounded and _many(_low(energies), ~mask & (_between(mask) | _between(mask.T).T))


def _missing(energies: np.ndarray, mask: np.ndarray | None = None, rounded: bool = False) -> np.ndarray:
    """Return which samples (row, column), of a mask if given, are missing between others; none unless there are many.

    These are zeros in all coils, or, unless numbers are rounded, nearly nothing in half of the coils.
    """
    inside = np.ones(energies.shape[1:], dtype=bool) if mask is None else mask
    sampled = _sampled(energies.sum(axis=0)) & inside
    zeros = (_between(sampled) | _between(sampled.T).T) & inside
    # In the outer half numbers that are rounded to integers may be zero.
    many = _inner(zeros).mean() >= _GAPS_INSIDE or zeros.mean() >= _GAPS
    if rounded:
        return zeros & many
    low = _low(energies * inside)
    return (zeros | low) & inside & (many or _many(low, inside))


def _inner(values: np.ndarray) -> np.ndarray:
    return values[tuple(slice(size // 4, size - size // 4) for size in values.shape)]


def _many(low: np.ndarray, inside: np.ndarray) -> bool:
    """Return whether so many of some samples are low, or of the whole lines of them, that they were not measured."""
    lines = [low.all(axis=axis)[inside.all(axis=axis)] for axis in (0, 1)]
    samples = [low[inside], _inner(low)[_inner(inside)]]
    shares = [(found, _LOW_LINES) for found in lines] + [(found, _LOW_SAMPLES) for found in samples]
    return any(found.any() and found.mean() >= share for found, share in shares)


def _low(energies: np.ndarray) -> np.ndarray:
    """Return samples (row, column) far below those around: alone, or with all of their line."""
    means = energies.mean(axis=(-2, -1), keepdims=True)
    # A coil with another unit, or one that is broken, is no measure of the others.
    relative = (energies / np.where(means > 0, means, 1))[means[:, 0, 0] > 0]
    energy = _half(relative)
    level = uniform_filter(energy, _SAMPLES_AROUND, mode="nearest")
    level = np.minimum(level, np.maximum(_lower_side(energy), _lower_side(energy.T).T))
    rounded = np.where(energy > 0, _ROUNDED, _ROUNDED_SAMPLE) * energy.max()
    alone = (energy < _LOW_SAMPLE * level) & (level > rounded)
    return alone | _low_lines(relative) | _low_lines(relative.swapaxes(-2, -1))[:, None]


def _low_lines(relative: np.ndarray) -> np.ndarray:
    """Return which columns of (coil, row, column) are far below those on both sides."""
    lines = _half(relative.mean(axis=-2))
    level = np.minimum(uniform_filter1d(lines, _LINES_AROUND, mode="nearest"), _lower_side(lines))
    low = (lines < _LOW_LINE * level) & (level > np.where(lines > 0, _ROUNDED, _ROUNDED_LINE) * relative.max())
    along = _half(relative)[:, low].sum(axis=-1)
    middle = along[3 * len(along) // 8 : len(along) - 3 * len(along) // 8]
    return low & (middle.sum() <= _WHITE * along.sum())


def _half(values: np.ndarray) -> np.ndarray:
    """Return the value that half of the coils, the first axis, do not exceed."""
    middle = (len(values) - 1) // 2
    return np.partition(values, middle, axis=0)[middle]


def _lower_side(values: np.ndarray) -> np.ndarray:
    """Return the largest value before and up to each along the last axis, or after and from it if that is less."""
    before = np.maximum.accumulate(values, axis=-1)
    return np.minimum(before, np.maximum.accumulate(values[..., ::-1], axis=-1)[..., ::-1])


def _central_share(energy: np.ndarray) -> float:
    return float(energy[central_disc(*energy.shape).numpy()].sum() / energy.sum())


def _peak(energy: np.ndarray) -> tuple[int, ...]:
    return tuple(int(position) for position in np.unravel_index(energy.argmax(), energy.shape))


def _between(sampled: np.ndarray) -> np.ndarray:
    """Return where a sample is missing that has measured ones on both sides along the last axis."""
    before = np.logical_or.accumulate(sampled, axis=-1)
    after = np.logical_or.accumulate(sampled[..., ::-1], axis=-1)[..., ::-1]
    return before & after & ~sampled
