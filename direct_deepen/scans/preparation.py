"""From the slices of a scan to reconstruction problems, and what was found and chosen on the way.

What follows from the volume is found once, by :func:`~direct_deepen.data.inspection.inspect`; the rest slice by slice.
In this order: k-space is repaired and its sampled positions found; readout oversampling and the zeros around k-space
are removed; coils are prewhitened, then compressed; coil maps are ESPIRiT's; intensities are scaled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from direct_deepen.data.inspection import SMALLEST_CALIBRATION, Layout, as_complex, energies_of, inspect
from direct_deepen.data.ismrmrd_header import read_header
from direct_deepen.data.missing_samples import measured_samples, missing_samples
from direct_deepen.errors import DeepenError, require, require_choice, require_count, require_positive
from direct_deepen.physics.coil_compression import combined, principal_combinations
from direct_deepen.physics.espirit import LARGEST_CALIBRATION, calibration_width, espirit_maps
from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.physics.noise_level import estimated_noise_std
from direct_deepen.physics.prewhitening import corner_noise_covariance, noise_covariance, noise_level, prewhitened
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.scale import SCALES, intensity_scale
from direct_deepen.physics.sense_operator import SenseOperator, align_phase, low_resolution_maps
from direct_deepen.scans.scan import Scan
from direct_deepen.scans.undersampling import Undersampling, draw_mask

MOST_COILS = 16
"""Coils that are left by compression."""
_NOT_FINITE = "kspace holds a value that is not finite; allowed: finite numbers"
_PADDED = 0.9
"""Share of a side of k-space below which what is measured is surrounded by zeros, and not just by gaps of a mask."""
_AGREEING = 2.0
"""Factor up to which the level of a noise scan and that of the data are the same noise."""
CORNERS, WHITE = "corners", "white"


@dataclass(frozen=True)
class Choices:
    """What may be chosen for a scan; by default it is found."""

    noise: str | None = None
    """``white`` for coils as they are, ``corners`` for variances from the corners of k-space; None for the noise of the
    file, where it has any, and else as they are."""
    noise_std: float | None = None
    """η per real component of a sample, in the unit of k-space (after prewhitening); None to estimate it."""
    sensitivity_map: np.ndarray | None = None
    """Coil maps, complex (coil, row, column) or (slice, coil, row, column), of k-space as it is stored; None for
    ESPIRiT's."""
    most_coils: int = MOST_COILS
    """Coils after compression."""
    intensity_scale: str = "object"
    """That of the prior's training."""
    undersampling: Undersampling | None = None
    """Which samples of full data are to be left, to see what becomes of the image; None for all that there are."""

    def __post_init__(self) -> None:
        if self.noise is not None:
            require_choice("noise", self.noise, (CORNERS, WHITE))
        if self.noise_std is not None:
            require_positive("noise_std", self.noise_std)
        if self.sensitivity_map is not None:
            shape, dtype = self.sensitivity_map.shape, self.sensitivity_map.dtype
            require(
                len(shape) in (3, 4) and dtype.kind == "c",
                f"coil maps have shape {shape} and type {dtype}; allowed: complex ([slice,] coil, row, column)",
            )
        require_count("coils after compression", self.most_coils)
        require_choice("intensity_scale", self.intensity_scale, SCALES)


@dataclass(frozen=True)
class PreparedSlice:
    """A slice as a problem, with its noise and what was found of it."""

    problem: Problem
    """Of a batch of one, in scaled intensities."""
    noise_std: float | None
    """η per real component in the unit of k-space; None where nothing tells it."""
    found: Mapping[str, str]
    """What was found and chosen, by name."""
    reference: torch.Tensor | None = None
    """The coil-combined image of all samples, complex (row, column) in the unit of k-space, where these were left out
    for a trial."""


@dataclass(frozen=True)
class PreparedScan:
    """A scan whose volume has been looked at: its slices are prepared one by one."""

    scan: Scan
    choices: Choices
    layout: Layout
    mask: Any
    """As ``Scan.mask``, found from the zeros where the file has none; None for full sampling."""
    field_rows: int
    """Rows of the field of view that images show, in pixels of k-space as stored: fewer with readout oversampling."""
    size: tuple[int, int]
    """Rows and columns of the images: of what was measured."""
    voxel_size: tuple[float, float, float] | None
    """Row, column and slice of the images in millimetres, where the file says so."""
    found: Mapping[str, str]
    """What was found of the volume, by name."""

    @property
    def num_slices(self) -> int:
        """Number of slices."""
        return self.layout.num_slices

    def is_empty(self, number: int) -> bool:
        """Return whether a slice has no signal."""
        return number in self.layout.empty_slices

    def slice(self, number: int) -> PreparedSlice:
        """Prepare a slice; a :class:`DeepenError`, which names it, if that cannot be."""
        try:
            return _prepare(self, number)
        except DeepenError as error:
            raise DeepenError(f"{self.scan.path}: {self.scan.label(number)}: {error}") from error


def prepare(scan: Scan, choices: Choices | None = None) -> PreparedScan:
    """Look at a scan as a whole.

    Raises
    ------
    DeepenError
        If it cannot be what it should be: images in place of k-space, a centre elsewhere, no signal, missing samples.
    """
    path, kspace = scan.path, scan.kspace
    require(len(kspace.shape) in (3, 4), f"{path}: kspace has shape {kspace.shape}; allowed: up to four axes")
    told = f"{path}: its mask leaves no sample of k-space; allowed: a mask of what was measured"
    require(scan.mask is None or bool(np.any(scan.mask)), told)
    measured = _measured_samples(kspace)
    mask = scan.mask if scan.mask is not None else _mask_of_zeros(kspace, measured)
    content: dict[str, Any] = {"kspace": kspace, "ismrmrd_header": scan.header}
    layout = inspect(
        path, content | ({} if mask is None else {"mask": mask}),
        use_mask=mask is not None, undersampled=mask is not None, calibrated=False,
    )  # fmt: skip
    require(len(layout.empty_slices) < layout.num_slices, f"{path}: kspace is zero; allowed: data with a signal")
    masks = _repaired_masks(layout, measured if mask is None else mask, kspace.shape)
    sampled = np.any(masks & _repaired_masks(layout, measured, kspace.shape), axis=0)
    sampled[:, : layout.columns[0]] = sampled[:, layout.columns[1] :] = False
    if not sampled.any():
        # Of padding, or of samples that are zero, or no numbers.
        finite = all(bool(np.isfinite(kspace[number]).all()) for number in range(len(kspace)))
        raise DeepenError(told if finite else f"{path}: {_NOT_FINITE}")
    rows, shape = layout.field_of_view[0], sampled.shape
    if not (0 < rows < shape[0] and (masks == masks[:, :1]).all()):
        rows = shape[0]
    size = _size(sampled, rows)
    found = {}
    if rows < shape[0]:
        found["readout oversampling"] = f"{shape[0]} rows to {rows}"
    if size != (rows, shape[1]):
        found["zeros around k-space"] = f"{rows}×{shape[1]} to {size[0]}×{size[1]}"
    voxel_size = _voxel_size(scan, shape, (rows / size[0], shape[1] / size[1]))
    return PreparedScan(scan, choices or Choices(), layout, mask, rows, size, voxel_size, found)


def _measured_samples(kspace: Any) -> np.ndarray:
    """Return where k-space is not zero, boolean (slice, row, column) as stored."""
    return np.stack([measured_samples(_energies(kspace, number).sum(axis=0)) for number in range(len(kspace))])


def _mask_of_zeros(kspace: Any, measured: np.ndarray) -> np.ndarray | None:
    """Return where that is, if samples are missing between others in any slice; slices without a signal count as full.

    Of numbers that are rounded any may be zero.
    """
    if kspace.dtype.kind in "iu" or kspace.dtype == np.float16:
        return None
    signals = measured.any(axis=(1, 2))
    if not any(missing_samples(_energies(kspace, int(number))).any() for number in np.flatnonzero(signals)):
        return None
    return measured | ~signals[:, None, None]


def _energies(kspace: Any, number: int) -> np.ndarray:
    return energies_of(as_complex(np.asarray(kspace[number])))


def _repaired_masks(layout: Layout, stored: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return masks of all slices, boolean (slice, row, column), as k-space is repaired."""
    plane = shape[:-3:-1] if layout.swapped else shape[-2:]
    masks = [layout.mask(np.asarray(stored), number, plane) for number in range(layout.num_slices)]
    # One that does not fit was refused.
    return np.stack([mask for mask in masks if mask is not None])


def _size(sampled: np.ndarray, rows: int) -> tuple[int, int]:
    """Return rows and columns about the centre that hold what was measured, of ``rows`` without oversampling.

    All of them, unless a tenth is zeros.
    """
    whole = rows, sampled.shape[1]
    inner = (rows if rows < len(sampled) else _measured_size(sampled.any(axis=1))), _measured_size(sampled.any(axis=0))
    found = [part if part <= _PADDED * size else size for part, size in zip(inner, whole, strict=True)]
    return found[0], found[1]


def _voxel_size(scan: Scan, shape: tuple[int, ...], factor: tuple[float, float]) -> tuple[float, float, float] | None:
    """Return the size of voxels: fields of view of the encoded space over k-space as stored, larger where it is cut."""
    if scan.header is None:
        return None
    header = read_header(scan.header)
    (row, column, _), (_, _, depth) = header.lengths
    if not header.has_lengths or depth == 0:
        return None
    slices = header.reconstruction[2] if header.reconstruction else 1
    return factor[0] * row / shape[0], factor[1] * column / shape[1], depth / slices


# ---- A slice


def _prepare(prepared: PreparedScan, number: int) -> PreparedSlice:
    scan, choices = prepared.scan, prepared.choices
    kspace, sampled = _measured(prepared, number)
    require(bool(kspace.any()), "kspace is zero; allowed: data with a signal")
    maps = maps_given(choices, number, prepared.num_slices, tuple(kspace.shape))
    calibration = _calibration_of(prepared, number)
    stacks, sampled = _cut([kspace] if calibration is None else [kspace, calibration], sampled, prepared)
    if maps is not None:
        stacks.append(_as_images(maps, prepared))
    full = None
    if choices.undersampling is not None:
        require(bool(sampled.all()), "undersampled already; allowed with --accelerate: all samples of k-space")
        full, sampled = stacks[0], draw_mask(choices.undersampling, sampled.shape, number)
        stacks = [full * sampled, *stacks[1:], full]
    found = {"sampling": _sampling(sampled)}
    covariance, source = covariance_of(scan, choices, stacks[0])
    if covariance is not None:
        stacks = [prewhitened(part, covariance) for part in stacks]
    found["noise"] = source
    # Of all coils: those that compression leaves out tell noise from signal.
    level, told = _level(stacks[0], sampled, covariance, scan, choices)
    found["noise level"] = told
    width = max(SMALLEST_CALIBRATION, min(calibration_width(sampled), LARGEST_CALIBRATION))
    middle = _centre(stacks[0], [min(width, size) for size in sampled.shape]).flatten(1)
    stacks, found["coils"] = compressed(stacks, middle, choices.most_coils)
    kspace = stacks[0]
    if maps is not None:
        maps, found["coil maps"] = stacks[1 if calibration is None else 2], "given"
    else:
        centre = (kspace, sampled) if calibration is None else (stacks[1], (stacks[1] != 0).any(dim=0))
        maps, found["coil maps"] = coil_maps_of(*centre)
    mask = sampled[None, None]
    A = align_phase(SenseOperator(maps[None], mask), kspace[None])
    scale = intensity_scale(A, kspace[None], kind=choices.intensity_scale)
    problem = Problem(A, kspace[None] / scale[:, None, None, None], scale, [(scan.path.name, number)])
    reference = None if full is None else A.fully_sampled().adjoint(stacks[-1][None])[0]
    return PreparedSlice(problem, level, found, reference)


def _measured(prepared: PreparedScan, number: int, stored: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return k-space, complex64 (coil, row, column) and zero where it was not sampled, and where it was."""
    layout = prepared.layout
    kspace = layout.repaired(np.asarray((prepared.scan.kspace if stored is None else stored)[number]))
    kspace = kspace[None] if kspace.ndim == 2 else kspace
    require(bool(np.isfinite(kspace).all()), _NOT_FINITE)
    shape = kspace.shape[-2:]
    sampled = (kspace != 0).any(axis=0)
    if prepared.mask is not None and stored is None:
        mask = layout.mask(prepared.mask, number, shape)
        assert mask is not None  # it was looked at
        sampled &= mask
    columns = np.arange(shape[1])
    sampled &= (layout.columns[0] <= columns) & (columns < layout.columns[1])
    # Of whole numbers a sample may be zero in all coils: what lies between measured lines was measured.
    if prepared.mask is None and stored is None:
        rows, columns = sampled.any(axis=1), sampled.any(axis=0)
        sampled = _hull(rows)[:, None] & _hull(columns)
    kspace = np.where(sampled, kspace, 0).astype(np.complex64)
    return torch.from_numpy(kspace), torch.from_numpy(sampled)


def _calibration_of(prepared: PreparedScan, number: int) -> torch.Tensor | None:
    """Return k-space of the separate calibration scan of a slice, complex (coil, row, column); it has no series."""
    scan = prepared.scan
    if scan.calibration is None:
        return None
    place = scan.places[number][0] if scan.places else number
    count = len(scan.calibration)
    require(place < count, f"the calibration scan has {count} slices; allowed: one for every slice")
    return _measured(prepared, place, scan.calibration)[0]


def _hull(places: np.ndarray) -> np.ndarray:
    """Return the places from the first to the last that is true."""
    return np.logical_or.accumulate(places) & np.logical_or.accumulate(places[::-1])[::-1]


def _sampling(sampled: torch.Tensor) -> str:
    share = float(sampled.double().mean())
    lines = bool((sampled.any(dim=0) == sampled.all(dim=0)).all() or (sampled.any(dim=1) == sampled.all(dim=1)).all())
    kind = "all" if share == 1 else "lines" if lines else "two-dimensional"
    width = min(calibration_width(sampled), LARGEST_CALIBRATION)
    return f"{kind}, {share:.1%} of {sampled.shape[0]}×{sampled.shape[1]}; centre of {width}×{width} for coil maps"


def maps_given(choices: Choices, number: int, count: int, shape: tuple[int, ...]) -> torch.Tensor | None:
    """Return the maps that were given for a slice of so many, complex (coil, row, column) of a shape, if any were."""
    if choices.sensitivity_map is None:
        return None
    maps = choices.sensitivity_map if choices.sensitivity_map.ndim == 4 else choices.sensitivity_map[None]
    require(
        maps.shape in ((1, *shape), (count, *shape)),
        f"coil maps have shape {choices.sensitivity_map.shape}; allowed: (coil, row, column) {shape}, or {count} of "
        "these, a slice each",
    )
    of_slice = maps[number if len(maps) == count else 0]
    return torch.from_numpy(np.array(of_slice, dtype=np.complex64, order="C"))


def _as_images(maps: torch.Tensor, prepared: PreparedScan) -> torch.Tensor:
    """Return maps of k-space as stored for that without oversampling and zeros: fewer pixels, of the same places."""
    rows = prepared.field_rows
    first = maps.shape[-2] // 2 - rows // 2
    maps = maps[:, first : first + rows].contiguous()
    if maps.shape[-2:] == prepared.size:
        return maps
    kept = _centre(fft2(maps), prepared.size)
    # Orthonormal transforms of fewer pixels have larger values.
    return ifft2(kept) * (kept[0].numel() / maps[0].numel()) ** 0.5


def _cut(
    stacks: list[torch.Tensor], sampled: torch.Tensor, prepared: PreparedScan
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Remove readout oversampling, and zeros around k-space."""
    rows = prepared.field_rows
    if rows < sampled.shape[0]:
        stacks = [_cropped_field(part, rows) for part in stacks]
        sampled = sampled[:1].expand(rows, -1)
    if sampled.shape != prepared.size:
        stacks, sampled = [_centre(part, prepared.size) for part in stacks], _centre(sampled, prepared.size)
    return stacks, sampled.contiguous()


def _cropped_field(kspace: torch.Tensor, rows: int) -> torch.Tensor:
    """Return k-space (…, row, column) of the middle of the field of view, of so many rows."""
    images = ifft2(kspace)
    first = images.shape[-2] // 2 - rows // 2
    return fft2(images[..., first : first + rows, :].contiguous())


def _measured_size(sampled: np.ndarray) -> int:
    """Return the least even number of samples about the centre that holds all that were measured, at most all."""
    places = np.flatnonzero(sampled)
    centre = len(sampled) // 2
    return min(len(sampled), 2 * max(centre - int(places[0]), int(places[-1]) - centre + 1))


def _centre(values: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    first = [whole // 2 - size // 2 for whole, size in zip(values.shape[-2:], sizes, strict=True)]
    return values[..., first[0] : first[0] + sizes[0], first[1] : first[1] + sizes[1]].contiguous()


def covariance_of(scan: Scan, choices: Choices, kspace: torch.Tensor | None = None) -> tuple[torch.Tensor | None, str]:
    """Return the covariance that coils are whitened by, and what is to be said of it; k-space for its corners."""
    if choices.noise == WHITE:
        return None, "taken for white, alike in all coils"
    if choices.noise == CORNERS and kspace is not None:
        return corner_noise_covariance(kspace), "variances of coils from the corners of k-space"
    if scan.noise_covariance is not None:
        return torch.from_numpy(np.array(scan.noise_covariance)), "covariance of the file"
    if scan.noise is not None:
        samples = torch.from_numpy(np.array(scan.noise, order="C")).flatten(1)
        return noise_covariance(samples), f"covariance of the file's noise scan, {samples.shape[1]} samples a coil"
    return None, "no noise scan: taken for white, alike in all coils"


def compressed(parts: Sequence[torch.Tensor], centre: torch.Tensor, most: int) -> tuple[list[torch.Tensor], str]:
    """Combine the coils of all parts, complex (coil, …), to so many at most; return what is to be said of it.

    The combinations are those of samples about the centre of k-space, complex (coil, sample).
    """
    coils = len(centre)
    if coils <= most:
        return list(parts), str(coils)
    combinations, kept = principal_combinations(centre, most)
    told = f"{coils}, compressed to {most} ({kept:.1%} of the energy of the centre)"
    return [combined(part, combinations) for part in parts], told


def coil_maps_of(kspace: torch.Tensor, sampled: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Return the coil maps of k-space, complex (coil, row, column), and what they are of.

    ESPIRiT's, or of a centre that is too narrow for it those of low-resolution images.
    """
    if len(kspace) == 1:
        return torch.ones_like(kspace), "one coil, taken for one everywhere"
    width = min(calibration_width(sampled), LARGEST_CALIBRATION)
    require(
        width >= SMALLEST_CALIBRATION,
        f"the fully sampled centre of k-space is {width} samples wide; allowed: >= {SMALLEST_CALIBRATION}, as coil "
        "maps are estimated from it, or maps of your own (--maps)",
    )
    try:
        return espirit_maps(kspace, sampled), f"ESPIRiT, of {width}×{width} samples, one set"
    except DeepenError:
        told = f"images of the central {width}×{width} samples, too few for ESPIRiT: their edges are wrong"
        return low_resolution_maps(kspace, width), told


def _level(
    kspace: torch.Tensor, sampled: torch.Tensor, covariance: torch.Tensor | None, scan: Scan, choices: Choices
) -> tuple[float | None, str]:
    """Return η, given, of the noise scan where that agrees with the data, or of the data; None where nothing tells."""
    if choices.noise_std is not None:
        return choices.noise_std, f"{choices.noise_std:.3g}, given"
    try:
        of_data = float(estimated_noise_std(kspace[None], sampled[None, None])[0])
        doubt = ""
    except DeepenError as error:
        of_data, doubt = None, str(error)
    measured = covariance is not None and choices.noise is None
    of_scan = noise_level(covariance) if measured and covariance is not None else None
    if of_scan is not None and (of_data is None or 1 / _AGREEING < of_scan / of_data < _AGREEING):
        return of_scan, f"{of_scan:.3g}, of the noise scan"
    if of_data is not None:
        other = "" if of_scan is None else f"; the noise scan has {of_scan:.3g}, which is of another unit"
        return of_data, f"{of_data:.3g}, of the data{other}"
    return None, f"that of the prior's training ({doubt}); --noise-std gives it"
