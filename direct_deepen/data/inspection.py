"""One look at every volume before anything runs: what of its layout would give wrong results without an error.

Thresholds were set on measured slices of six scans: five heads, 1 to 16 coils, and a knee, 96×96 to 332×640. The
share of the energy in the central disc of k-space is 0.66 to 0.81 there, 0.35 and more with the centre 3 % off, at most
0.016 with it 8 to 10 % off, 0.005 in a partial echo, 0.001 in the corner, 0.05 to 0.13 where one axis is transformed
already; noise alone has 0.004, the share of the area. No sample is zero, and at most 0.7 % are as small as one.

The look reads one coil of every slice and one slice whole: 16 slices of 35 coils of 640×368 take 1.4 s on two cores as
fastMRI stores them, and 8 s in chunks of a slice that are compressed, as all of them are unpacked then.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from direct_deepen.data.fastmri_file import open_volume
from direct_deepen.data.ismrmrd_header import Header, read_header
from direct_deepen.data.likeness import evenly_spread, unlike
from direct_deepen.data.missing_samples import NOT_MEASURED, ends_with, measured_samples, missing_samples
from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.espirit import KERNEL_WIDTH, calibration_width
from direct_deepen.physics.scale import central_disc

_logger = logging.getLogger(__name__)

_EMPTY = 1e-10
"""Norm of a slice, relative to the largest, below which it holds rounding errors of zeros."""
_CENTRED, _OFF_CENTRE = 0.3, 0.05
"""Share of the energy in the central disc from which the centre of k-space is in the middle; below which it is not."""
_FAR = 0.075
"""Distance of the largest sample from the middle, in cycles per pixel, which makes a share between these two wrong."""
_PADDING_ENERGY = 1e-4
"""Share of the energy in columns that the header declares to be padding."""
_FAINT, _FAINT_SHARE = 1e-3, 0.01
"""Magnitude, relative to the mean, below which DIRECT may take a sample for padding; share of samples with a signal
below it in data without noise. Measured data have at most 1e-5."""
_UNLIKE, _ONE_SLICE = 2.5, 0.015
"""How much more alike slices than coils are if they seem exchanged; how little slices differ that seem coils of one.
In measured coils 0.9 to 2.8 % of the energy is of no common image, in slices of a head 4 to 24 %, in neighbours 1.7 %.
"""
_MOST_COILS, _FEWEST_SAMPLES = 128, 32
SMALLEST_CALIBRATION = 4
"""Fully sampled rows and columns about the centre of k-space, from which DIRECT can estimate coil maps."""
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
        return inspect(path, file, use_mask=use_mask, undersampled=undersampled, calibrated=calibrated)


def inspect(path: Path, content: Mapping[str, Any], *, use_mask: bool, undersampled: bool, calibrated: bool) -> Layout:
    """Look at the layout of what was read from a file as :func:`inspect_volume` does, whatever its format.

    ``content`` has ``kspace`` as fastMRI's files do, or anything with its shape and type whose slices and coils can be
    taken by number; and ``mask`` and ``ismrmrd_header`` where these are known.
    """
    try:
        return _Look(path, content).look(use_mask, undersampled, calibrated)
    except DeepenError as error:
        raise DeepenError(f"{path}: {error}") from error


class _Look:
    """A volume while it is looked at."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path, self.content, self.stored = path, content, content["kspace"]
        self.layout = Layout(0)
        self.with_gaps: list[int] = []
        self.shape: tuple[int, ...] = self.stored.shape
        self.header = Header()

    def look(self, use_mask: bool, undersampled: bool, calibrated: bool) -> Layout:
        """Return the layout of the volume; what is found first ends the look if it cannot be repaired."""
        self._number_type()
        self._header()
        strongest = self._strongest()
        if strongest in self.layout.empty_slices or not self._is_finite(strongest):
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
        faint = (size > NOT_MEASURED * np.sqrt(energy.mean())) & (size < _FAINT * size.mean())
        if faint[... if mask is None else mask].mean() > _FAINT_SHARE:
            _logger.info("%s: data without noise; padding_eps is not used, only zeros are padding", self.path)
            self.layout = replace(self.layout, faint=True)
        return self.layout

    def _energies(self, number: int, first: bool = False) -> np.ndarray:
        """Energies (coil, row, column) of a slice, repaired as far as is known; of its first coil, or of all."""
        return energies_of(self.layout.repaired(self.stored[(number, 0)[: len(self.shape) - 2] if first else number]))

    def _is_finite(self, number: int) -> bool:
        return bool(np.isfinite(as_complex(self.stored[number])).all())

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
        shape, stored = self.shape, self.content.get("ismrmrd_header")
        if self._is_unusual():
            _logger.warning("%s: kspace has the unusual shape %s; expected: %s", self.path, shape, _AXES)
        header = self.header = (
            Header() if stored is None else read_header(stored[()] if hasattr(stored, "shape") else stored)
        )
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
            if not self._is_rounded() and energy.any() and missing_samples(energy).any():
                self.with_gaps.append(number)
        small = np.flatnonzero(norms <= _EMPTY * norms.max()).tolist()
        # Those that are not finite are refused by name when their turn comes.
        self.with_gaps = [number for number in self.with_gaps if self._is_finite(number)]
        empty = tuple(int(number) for number in small if self._is_finite(number))
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
        stored: Any = self.content.get("mask")
        if not hasattr(stored, "shape"):
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
        sampled = measured_samples(energies.sum(axis=0))
        certain = (
            bool(missing_samples(energies).any() and not missing_samples(energies, sampled).any())
            and not self._is_rounded()
        )
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
            first = [(full[place], 0)[: len(self.shape) - 2] for place in evenly_spread(len(full))]
            between_slices = unlike([self.layout.repaired(self.stored[place]) for place in first])
            between_coils = unlike(self.layout.repaired(self.stored[strongest])) if coils > 1 else between_coils
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
                not missing_samples(self._energies(number)).any(),
                f"slice {number} is undersampled already: many of its samples are zero between others, or noise far "
                "below those around; allowed: fully sampled volumes",
            )

    def _require_samples(self, energies: np.ndarray, mask: np.ndarray | None, undersampled: bool) -> None:
        """Look for samples that are missing between others, and whether the mask of the file is why."""
        partly = mask is not None and ends_with(energies, mask, self._is_rounded())
        require(
            undersampled or not partly,
            "undersampled already: its k-space is zero, or noise far below the rest, outside its `mask`; allowed: "
            "fully sampled volumes, as references and simulated masks need them (`direct predict` takes it with "
            "inference.dataset.pass_mask: true and inference.dataset.transforms.masking: null)",
        )
        missing = missing_samples(energies, mask if partly else None, self._is_rounded())
        told = "it holds no `mask`" if mask is None else "these are not where its `mask` says"
        require(
            not missing.any(),
            f"undersampled already: {missing.mean():.0%} of its samples are zero between others, or noise far below "
            f"those around, and {told}; allowed: fully sampled volumes (`direct predict` takes the mask from the zeros "
            "if there is none, with inference.dataset.pass_mask: true and inference.dataset.transforms.masking: null)",
        )


def energies_of(kspace: np.ndarray) -> np.ndarray:
    """Energies (coil, row, column) of k-space (…, row, column), where what is not finite counts as zero."""
    kspace = np.nan_to_num(kspace, posinf=0, neginf=0).astype(np.complex128)
    return (np.abs(kspace) ** 2).reshape(-1, *kspace.shape[-2:])


def _central_share(energy: np.ndarray) -> float:
    return float(energy[central_disc(*energy.shape).numpy()].sum() / energy.sum())


def _peak(energy: np.ndarray) -> tuple[int, ...]:
    return tuple(int(position) for position in np.unravel_index(energy.argmax(), energy.shape))
