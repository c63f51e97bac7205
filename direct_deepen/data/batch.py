"""From DIRECT's datasets and their batches to problems of the core, and to the references of their images."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

# Before direct.data.datasets_config, which a process that is spawned, as on macOS, may import first: the two import one
# another, and only this order works.
import direct.config.defaults  # noqa: F401
import torch
from torch.utils.data import Dataset

from direct_deepen.data.inspection import SMALLEST_CALIBRATION
from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.scale import FIELD_OF_VIEW, central_disc, intensity_scale
from direct_deepen.physics.sense import require_finite_data
from direct_deepen.physics.sense_operator import ROUNDING, SenseOperator, normalize_sensitivity_map

SMALLEST, _LARGEST = 1e-15, 1e15
"""Range of the largest sample in which squares, and their sums over pixels and coils, stay finite in single precision:
outside of it DIRECT's coil maps would be wrong."""

_GAPS = 0.1
"""Share of samples missing between others from which on k-space counts as undersampled."""


class NamedSlices(Dataset):
    """A dataset of DIRECT; where a slice cannot be read or transformed, a :class:`DeepenError` names file and slice.

    Slices may be ``left_out``, by their indices; volumes of which nothing is left are then no volumes of it.
    """

    def __init__(self, dataset: Any, left_out: frozenset[int] = frozenset()) -> None:
        self.dataset = dataset
        self.ndim: int = dataset.ndim
        self.text_description: str | None = dataset.text_description
        self.volume_indices: dict[Path, range] = dataset.volume_indices
        self.kept = [index for index in range(len(dataset)) if index not in left_out]
        if left_out:
            counts = {path: len(set(old) - left_out) for path, old in dataset.volume_indices.items()}
            ends = dict(zip(counts, accumulate(counts.values()), strict=True))
            self.volume_indices = {
                path: range(ends[path] - count, ends[path]) for path, count in counts.items() if count
            }

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        kept = self.kept[int(index)]
        try:
            return self.dataset[kept]
        except Exception as error:  # what DIRECT raises depends on what is wrong with the file
            path, number = next(
                (path, kept - old.start) for path, old in self.dataset.volume_indices.items() if kept in old
            )
            if isinstance(error, DeepenError):
                raise DeepenError(f"{path}: slice {number}: {error}") from error
            reason = " ".join(str(error).split())
            raise DeepenError(f"{path}: slice {number} cannot be read: {type(error).__name__}: {reason}") from error


def problem_from_batch(
    data: dict[str, Any], sensitivity_map: torch.Tensor | None = None, *, scale_kind: str = FIELD_OF_VIEW
) -> Problem:
    """Build the problem of a batch of DIRECT's supervised two-dimensional transforms.

    ``sensitivity_map``, complex (batch, coil, height, width), is used instead of the batch's. Maps with another Σ|S|²
    than 1 or 0, as those of a user's files, are divided by its root, as DIRECT's engines do. ``scale_kind`` is one of
    :data:`~direct_deepen.physics.scale.SCALES`; its field of view is the batch's ``field_of_view`` by the headers,
    whatever oversampling or padding is around it. :class:`DeepenError` with the names of files and slices if the data
    are not finite, or too large or small for single precision, the mask is empty or shapes do not match.
    """
    names = names_of_batch(data)
    masked_kspace = to_complex(data["masked_kspace"])
    maps = to_complex(data["sensitivity_map"]) if sensitivity_map is None else sensitivity_map
    try:
        require(
            maps.shape == masked_kspace.shape,
            f"sensitivity_map has shape {tuple(maps.shape)}, masked_kspace {tuple(masked_kspace.shape)}; "
            "allowed: equal shapes",
        )
        require_finite_data(masked_kspace)
        for largest in masked_kspace.abs().flatten(1).amax(dim=1).tolist():
            require(
                largest == 0 or SMALLEST <= largest <= _LARGEST,
                f"the largest sample of masked_kspace is {largest:.2g}; allowed: {SMALLEST:g} to {_LARGEST:g}",
            )
        A = SenseOperator(maps, data["sampling_mask"].squeeze(-1))
        _require_no_gaps(data)
        if sensitivity_map is None:
            _require_calibration(A)
        _require_centre(masked_kspace if "kspace" not in data else to_complex(data["kspace"]))
        if bool(((A.power - 1).abs() > ROUNDING)[A.power > 0].any()):
            A = SenseOperator(normalize_sensitivity_map(maps), A.sampling_mask)
        scale = intensity_scale(A, masked_kspace, kind=scale_kind, field_of_view=data.get("field_of_view"))
    except ValueError as error:
        where = ", ".join(f"{name} slice {number}" for name, number in names)
        raise DeepenError(f"{where}: {error}") from error
    return Problem(A, masked_kspace / scale[:, None, None, None], scale, names)


def _require_no_gaps(data: dict[str, Any]) -> None:
    """Refuse a mask that was drawn for k-space with gaps, by DIRECT's ``padding``: where that is zero in all coils."""
    if "padding" not in data:
        return
    measured = ~data["padding"][..., 0]
    gaps = torch.zeros_like(measured)
    for axis in (-2, -1):
        before = measured.int().cummax(dim=axis).values
        after = measured.flip(axis).int().cummax(dim=axis).values.flip(axis)
        gaps |= (before * after != 0) & ~measured
    # Far out single samples may be zero by chance: of integers that were rounded, for one.
    height, width = gaps.shape[-2:]
    inner = gaps[..., height // 4 : height - height // 4, width // 4 : width - width // 4]
    # The mask of a file has all samples that were measured.
    drawn = (measured & (data["sampling_mask"][..., 0] == 0)).flatten(1).any(dim=1)
    share = float((inner.flatten(1).float().mean(dim=1) * drawn).max())
    require(
        share < _GAPS,
        f"{share:.0%} of the samples around the centre of k-space are zero between others: undersampled already; "
        "allowed: fully sampled k-space, for which masks can be drawn",
    )


def _require_calibration(A: SenseOperator) -> None:
    """Refuse maps that DIRECT has estimated from a centre too small for that; those that are constant it has not."""
    rows, columns = (
        slice(size // 2 - SMALLEST_CALIBRATION // 2, size // 2 + SMALLEST_CALIBRATION // 2)
        for size in A.sampling_mask.shape[-2:]
    )
    estimated = (A.sensitivity_map != A.sensitivity_map[..., :1, :1]).flatten(1).any(dim=1)
    complete = (A.sampling_mask[..., rows, columns] != 0).flatten(1).all(dim=1)
    require(
        not bool((estimated & ~complete).any()),
        f"sampling_mask lacks some of the {SMALLEST_CALIBRATION}×{SMALLEST_CALIBRATION} samples about the centre of "
        "k-space; allowed: masks with all of them, as coil maps are estimated from there (raise center_fractions)",
    )


def _require_centre(kspace: torch.Tensor) -> None:
    """Refuse k-space whose zero frequency is in the corner of the array, as numpy's FFT leaves it.

    DIRECT's masks, calibration regions and coil maps are about the middle, under ``fft2(centered=False)`` too.
    """
    disc = central_disc(*kspace.shape[-2:], device=kspace.device)
    energy = (kspace.abs() / kspace.abs().amax().clamp_min(SMALLEST)).square().sum(dim=1)
    middle, corner = ((energy * where).sum(dim=(-2, -1)) for where in (disc, torch.fft.ifftshift(disc)))
    # Noise alone has a ratio near one; images, hundreds either way.
    require(
        not bool((corner > 10 * middle).any()),
        "the centre of k-space is in the corner of the array; allowed: in the middle, where DIRECT's masks are (write "
        "numpy.fft.fftshift(kspace, axes=(-2, -1)); physics.forward_operator stays)",
    )


def selected(data: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Return some images of a batch of DIRECT, with all that has the batch first."""
    size = len(data["filename"])
    result = {
        key: value[list(rows)]
        for key, value in data.items()
        if isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == size
    }
    return {**result, "filename": [data["filename"][i] for i in rows]}


def names_of_batch(data: dict[str, Any]) -> list[tuple[str, int]]:
    """Return file and slice of every image of a batch of DIRECT."""
    return [(str(name), int(number)) for name, number in zip(data["filename"], data["slice_no"], strict=True)]


def reference_image(data: dict[str, Any], problem: Problem) -> torch.Tensor:
    """Scaled reference Σ_c conj(S_c) Fᴴk_c of the fully sampled k-space; complex (batch, height, width)."""
    require(
        "kspace" in data,
        "kspace is missing in the batch; training needs fully sampled data and transforms.delete_kspace: false",
    )
    kspace = to_complex(data["kspace"])
    finite = bool(torch.isfinite(kspace).all())
    require(finite, f"kspace of {problem.names} has NaN or infinite values; allowed: finite values")
    return problem.A.fully_sampled().adjoint(kspace) / problem.scale[:, None, None]


def to_complex(tensor: torch.Tensor) -> torch.Tensor:
    """Convert DIRECT's trailing real/imaginary axis to a complex tensor."""
    return torch.view_as_complex(tensor.contiguous())
