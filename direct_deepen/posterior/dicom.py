"""Posterior files as DICOM series, for archives and viewers of hospitals.

A volume becomes one series of its reconstruction and one of its standard deviation, a file for every slice. Where the
scanner's coordinates are known they are MR Image Storage. That class demands them; without them slices are Secondary
Capture, with which no viewer shows sides of a patient that nobody knows.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from direct_deepen.errors import optional_import, require
from direct_deepen.files import write_file
from direct_deepen.posterior.dicom_attributes import (
    LARGEST,
    SAME_IN_ALL,
    description,
    doubts_by_slice,
    grid_of,
    pixel_format,
    place,
)
from direct_deepen.posterior.placement import PlacedImages, placed_images
from direct_deepen.posterior.posterior_file import ESTIMATES, PosteriorVolume, final_estimate
from direct_deepen.version import VERSION

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DEVIATION = "std"


def write_dicom(volume: PosteriorVolume, folder: Path) -> list[Path]:
    """Write the reconstruction of a volume, and its standard deviation, as DICOM series; return the files.

    The reconstruction is the magnitude of the posterior mean, or where the file has none of MAP, or of ``image``: what
    DIRECT's own file has. The standard deviation is ``std``, where there is one. Files are ``mean_0001.dcm`` and so on,
    a slice each, cropped as by :func:`~direct_deepen.posterior.nifti.write_nifti`; files in the folder that an earlier
    volume left under such names are removed. Stored values are whole numbers from 0 to 65535, with one factor a series
    to the units of the file, its Real World Value Slope.

    With the attribute ``affine`` slices are MR Image Storage, with position, orientation and voxels; without, Secondary
    Capture with the size of pixels where it is known. They name no patient, file, date or institution. Identifiers
    follow from the content and the version of the package: the same file gives the same series twice.

    Raises
    ------
    DeepenError
        If the file has no reconstruction, a value that is not finite, attributes that are no place, or rows and columns
        that are not perpendicular; if the disk is full, the folder cannot be made, or pydicom is not installed.
    """
    with optional_import("dicom", "DICOM files need pydicom"):
        import pydicom  # noqa: F401 - before anything is computed
    kinds = [final_estimate(volume.estimates()), *([_DEVIATION] if _DEVIATION in volume.arrays else [])]
    images = {kind: placed_images(volume, kind) for kind in kinds}
    content = _digest(volume, images)
    files = {
        folder / f"{kind}_{number:04d}.dcm": file
        for series, kind in enumerate(kinds, start=1)
        for number, file in enumerate(_files(volume, kind, series, images[kind], content), start=1)
    }
    for path, file in files.items():
        write_file(path, file)
    ours = re.compile(rf"({'|'.join((*ESTIMATES, _DEVIATION))})_\d{{4,}}\.dcm")
    for path in folder.glob("*.dcm"):
        if ours.fullmatch(path.name) and path not in files:
            path.unlink(missing_ok=True)
    return list(files)


def _digest(volume: PosteriorVolume, images: Mapping[str, PlacedImages]) -> str:
    """Return a digest of all that is written."""
    attributes = {name: np.asarray(value).tolist() for name, value in volume.attributes.items()}
    digest = hashlib.sha256(json.dumps([VERSION, attributes], sort_keys=True, default=str).encode())
    for kind, placed in images.items():
        digest.update(f"{kind} {placed.magnitudes.shape} {placed.magnitudes.dtype}".encode())
        digest.update(np.ascontiguousarray(placed.magnitudes).tobytes())
    return digest.hexdigest()


def _files(volume: PosteriorVolume, kind: str, series: int, placed: PlacedImages, content: str) -> list[bytes]:
    """Return the files of a series, slice by slice; ``content`` is the digest that identifiers follow from."""
    from pydicom import uid

    def identifier(*what: str) -> str:
        return uid.generate_uid(entropy_srcs=[content, *what])

    magnitudes = placed.magnitudes.astype(np.float64)
    require(
        bool(np.isfinite(magnitudes).all()),
        f"{volume.path}: {kind} holds a value that is not finite; allowed: finite numbers",
    )
    factor = float(magnitudes.max()) / LARGEST or 1.0
    stored = np.rint(magnitudes / factor).astype("<u2")
    grid = None if placed.affine is None else grid_of(placed.affine, str(volume.path))
    shared = SAME_IN_ALL | pixel_format(stored, factor) | description(volume, kind, grid, placed.voxel_size)
    shared["SOPClassUID"] = uid.SecondaryCaptureImageStorage if grid is None else uid.MRImageStorage
    shared |= {"StudyInstanceUID": identifier("study"), "SeriesInstanceUID": identifier(kind), "SeriesNumber": series}
    if grid is not None:
        shared["FrameOfReferenceUID"] = identifier("frame of reference")
    doubts, files = doubts_by_slice(volume), []
    for number, image in enumerate(stored):
        own = {"SOPInstanceUID": identifier(kind, str(number)), "InstanceNumber": number + 1}
        if number in doubts:
            own["ImageComments"] = "; ".join([*filter(None, [shared.get("ImageComments")]), *doubts[number]])
        dataset = _dataset(shared | place(grid, placed.voxel_size, number) | own)
        dataset.PixelData = image.tobytes()
        files.append(_encoded(dataset))
    return files


def _dataset(values: Mapping[str, Any]) -> "Dataset":
    """Return values by their keywords as a dataset, and so those of the items of sequences."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for keyword, value in values.items():
        nested = isinstance(value, list) and isinstance(value[0], Mapping)
        setattr(dataset, keyword, [_dataset(item) for item in value] if nested else value)
    return dataset


def _encoded(dataset: "Dataset") -> bytes:
    """Return a dataset as a file."""
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()
