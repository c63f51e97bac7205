"""What DICOM files of a posterior say besides their pixels, by the keywords of the standard (PS3.6).

Which there have to be is in PS3.3, A.4 (MR Image) and A.8 (Secondary Capture), and the modules that these name. What
has to be there and is not known is empty, which the standard calls type 2.

The factor from stored values to the units of the file is a Real World Value Mapping. The standard allows one in images
of any class (C.7.6.1, General Image), and it is in double precision. A Rescale Slope is no part of these two classes;
viewers would apply it before the window, in units of which the brightest pixel may have a ten-thousandth.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from direct_deepen.errors import require
from direct_deepen.posterior.posterior_file import PosteriorVolume, doubts_of
from direct_deepen.version import VERSION

LARGEST = 65535
"""Of unsigned numbers of 16 bits."""

_BRIGHTEST = 0.999
"""Quantile of a series that is shown white."""
_PERPENDICULAR = 1e-4
"""Up to this cosine rows and columns are taken for perpendicular."""
_LONGEST_TEXT = 1024
"""Characters of a Derivation Description."""

SAME_IN_ALL: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": None, "PatientID": None, "PatientBirthDate": None, "PatientSex": None,
    "StudyDate": None, "StudyTime": None, "StudyID": None, "AccessionNumber": None, "ReferringPhysicianName": None,
    "Laterality": None, "Modality": "MR", "Manufacturer": "direct-deepen", "ManufacturerModelName": "direct-deepen",
    "BurnedInAnnotation": "NO",
}  # fmt: skip
"""Values of every file; patient, study and physician are unknown."""

_UNTOLD_SEQUENCE: dict[str, Any] = {
    "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": None, "MRAcquisitionType": None,
    "RepetitionTime": None, "EchoTime": None, "EchoTrainLength": None,
}  # fmt: skip
"""Of the MR Image module: a posterior file does not say how spins were excited. RM: research mode."""

_NAMES = {
    "map": ("DEEPEN MAP", "MAP ESTIMATE"),
    "mean": ("DEEPEN posterior mean", "POSTERIOR MEAN"),
    "image": ("direct-deepen reconstruction", "RECONSTRUCTION"),
    "std": ("DEEPEN standard deviation", "STD DEVIATION"),
}
"""What a dataset is called, and how as a value of Image Type: upper case, 16 characters at most."""
_DERIVATIONS = {
    "map": "Magnitude of the complex image of largest posterior probability given k-space",
    "mean": "Magnitude of the mean of samples of the posterior of complex images given k-space",
    "image": "Magnitude of the complex image reconstructed from k-space",
    "std": "Standard deviation of samples of the posterior of complex images given k-space, of the part in phase with "
    "their mean: how uncertain a pixel of the mean is, no image of tissue",
}
_TOLD = ("prior", "weights_sha256", "num_samples", "num_steps", "keep", "noise_std", "seed", "calibrated", "std_scale")
"""Attributes of a posterior file that its series repeat; no others, which may have names of files or people."""


@dataclass(frozen=True)
class Grid:
    """Where the slices of a series lie, in DICOM's coordinates: millimetres left, posterior, superior."""

    along_row: np.ndarray
    """From a pixel to the next of its row."""
    along_column: np.ndarray
    """From a pixel to the next of its column."""
    step: np.ndarray
    """From a slice to the next."""
    corner: np.ndarray
    """Of the first pixel of the first slice."""


def grid_of(affine: np.ndarray, where: str) -> Grid:
    """Return the grid of a matrix, 4×4, from column, row and slice to millimetres right, anterior, superior.

    A :class:`DeepenError` that begins with ``where`` if rows and columns are not perpendicular.
    """
    along_row, along_column, step, corner = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)[:3].T
    cosine = float(along_row @ along_column / (np.linalg.norm(along_row) * np.linalg.norm(along_column)))
    require(
        abs(cosine) < _PERPENDICULAR,
        f"{where}: rows and columns of its affine have the cosine {cosine:.3g}; allowed in DICOM: {_PERPENDICULAR}",
    )
    return Grid(along_row, along_column, step, corner)


def place(grid: Grid | None, voxel_size: tuple[float, float, float] | None, number: int) -> dict[str, Any]:
    """Return where a slice lies, by its number from 0; without a grid the size of its pixels, if it is known."""
    if grid is None:
        return {} if voxel_size is None else {"PixelSpacing": _decimals(voxel_size[:2])}
    width, height = np.linalg.norm(grid.along_row), np.linalg.norm(grid.along_column)
    row, column = grid.along_row / width, grid.along_column / height
    return {
        "ImagePositionPatient": _decimals(grid.corner + number * grid.step),
        "ImageOrientationPatient": _decimals([*row, *column]),
        "PixelSpacing": _decimals([height, width]),
        "SliceThickness": None if voxel_size is None else _decimals(voxel_size[2:])[0],
        "SpacingBetweenSlices": _decimals([abs(np.cross(row, column) @ grid.step)])[0],
    }


def _decimals(numbers: Iterable[float]) -> list[Any]:
    """Return numbers as decimal strings of at most 16 characters."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(number), auto_format=True) for number in numbers]


def pixel_format(stored: np.ndarray, factor: float) -> dict[str, Any]:
    """Return format, window and unit of whole numbers (slice, row, column), ``factor`` times which is in units."""
    brightest = max(1.0, np.ceil(np.quantile(stored, _BRIGHTEST)))
    unit = {"CodeValue": "[arb'U]", "CodingSchemeDesignator": "UCUM", "CodeMeaning": "arbitrary unit"}
    mapping = {
        "RealWorldValueFirstValueMapped": 0, "RealWorldValueLastValueMapped": LARGEST,
        "RealWorldValueIntercept": 0.0, "RealWorldValueSlope": factor,
        "LUTLabel": "POSTERIOR FILE", "LUTExplanation": "units of the posterior file",
        "MeasurementUnitsCodeSequence": [unit],
    }  # fmt: skip
    return {
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[1], "Columns": stored.shape[2],
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
        # Black at 0 and white at the brightest, by PS3.3, C.11.2.1.2.
        "WindowCenter": _decimals([(brightest + 1) / 2])[0], "WindowWidth": _decimals([brightest + 1])[0],
        "RealWorldValueMappingSequence": [mapping],
    }  # fmt: skip


def description(
    volume: PosteriorVolume, kind: str, grid: Grid | None, voxel_size: tuple[float, float, float] | None
) -> dict[str, Any]:
    """Return what a series says of itself: what it is, how it was computed, and what is unknown of it."""
    name, image_type = _NAMES[kind]
    attributes = volume.attributes
    units = str(attributes.get("units", "")).partition(": ")[2]
    texts = [
        _DERIVATIONS[kind],
        ", ".join(f"{told} {attributes[told]}" for told in _TOLD if told in attributes),
        units and f"Units of the posterior file: {units}",
    ]
    versions = dict.fromkeys([str(attributes.get("direct_deepen_version", VERSION)), VERSION])
    found = {
        "SeriesDescription": name,
        "ImageType": ["DERIVED", "SECONDARY", "OTHER", image_type],
        "SoftwareVersions": [f"direct-deepen {version}" for version in versions],
        "DerivationDescription": ". ".join(text for text in texts if text)[:_LONGEST_TEXT],
    }
    if grid is not None:
        return found | _UNTOLD_SEQUENCE | {"PatientPosition": None, "PositionReferenceIndicator": None}
    size = "unknown" if voxel_size is None else f"{'×'.join(f'{length:.4g}' for length in voxel_size)} mm"
    return found | {
        "SeriesDescription": f"{name}, position unknown",
        "ImageComments": f"Position and orientation are unknown; voxels along row, column and slice: {size}",
        # Synthetic, rather than of a film or a video.
        "ConversionType": "SYN",
        "PatientOrientation": None,
    }


def doubts_by_slice(volume: PosteriorVolume) -> dict[int, list[str]]:
    """Return why slices are not to be trusted, by their numbers from 0; of the others nothing."""
    found: dict[int, list[str]] = {}
    for name, (limit, slices) in doubts_of(volume).items():
        for number in slices:
            value = float(volume.arrays[name][number])
            found.setdefault(number, []).append(f"not to be trusted: {name} is {value:.3g}, above {limit:.3g}")
    return found
