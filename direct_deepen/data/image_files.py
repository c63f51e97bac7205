"""Series of magnitude images from files of any common kind: NIfTI, DICOM, numpy arrays, PNG."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from direct_deepen.errors import DeepenError, first_line, optional_import, require


@dataclass(frozen=True)
class ImageSeries:
    """Neighbouring slices of one shape."""

    source: Path
    """The file, or the folder of a DICOM series or of pictures."""
    images: np.ndarray
    """Magnitudes (slices, rows, columns), float32, in any unit, as seen: the patient's front or head up."""
    pixel_size: tuple[float, float] | None
    """Height and width of a pixel in mm, where the file says so."""
    patient: str | None = None
    """Whom the file names."""


def read_series(folder: Path) -> Iterator[ImageSeries]:
    """Read the images below a folder, in the order of their paths.

    They are ``.nii``, ``.nii.gz``, ``.dcm``, ``.npy``, ``.npz`` and ``.png``; other files are passed over. DICOM files
    of a folder belong to the series that they name, pictures of a folder to one. NIfTI volumes are cut across their
    thickest voxels, axially if all sides are equal. Slices of several shapes are several series.

    Raises
    ------
    DeepenError
        If there is no such file, a file cannot be read, holds complex numbers or another number of dimensions, or the
        package that reads it is not installed.
    """
    require(folder.is_dir(), f"{folder}: no folder; allowed: a folder of images")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    grouped: dict[Any, list[Path]] = defaultdict(list)
    for path in files:
        kind = next((suffix for suffix in _READERS if path.name.lower().endswith(suffix)), None)
        if kind is not None:
            grouped[(path.parent if kind in (".dcm", ".png") else path, kind)].append(path)
    require(len(grouped) > 0, f"{folder}: holds no images; allowed: files *{', *'.join(_READERS)}")
    for (source, kind), paths in grouped.items():
        with _named(source):
            yield from _READERS[kind](source, paths)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises, of any format, into a :class:`DeepenError` that names the file."""
    try:
        yield
    except DeepenError:
        raise
    except Exception as error:
        raise DeepenError(f"{path}: cannot be read: {first_line(error)}") from error


def _read_nifti(source: Path, paths: list[Path]) -> Iterator[ImageSeries]:
    with optional_import("images", "reading NIfTI files"):
        import nibabel
    image = nibabel.as_closest_canonical(nibabel.load(source))
    require(len(image.shape) == 3, f"{source}: has shape {image.shape}; allowed: three dimensions")
    sizes = np.asarray(image.header.get_zooms()[:3], dtype=float)
    # Right, front, up. The last axis, axial slices, also where it is thicker by no more than rounding.
    across = int(np.argmax(sizes)) if sizes.max() > 1.05 * sizes[2] else 2
    # Rows run down and columns to the right; up is the patient's head, and front in axial slices.
    right, up = (axis for axis in range(3) if axis != across)
    volume = image.get_fdata(dtype=np.float32).transpose(across, up, right)[:, ::-1]
    yield from _runs(source, volume, (float(sizes[up]), float(sizes[right])))


def _read_dicom(source: Path, paths: list[Path]) -> Iterator[ImageSeries]:
    with optional_import("images", "reading DICOM files"):
        import pydicom
    series: dict[str, list[Any]] = defaultdict(list)
    for path in paths:
        with _named(path):
            dataset = pydicom.dcmread(path)
            dataset.pixel_array  # noqa: B018 - read here, where the file is known
        series[str(dataset.get("SeriesInstanceUID", ""))].append(dataset)
    for slices in series.values():
        slices.sort(key=_place)
        sizes = slices[0].get("PixelSpacing")
        yield from _runs(
            source,
            [slice_.pixel_array for slice_ in slices],
            None if sizes is None else (float(sizes[0]), float(sizes[1])),
            str(slices[0].get("PatientID", "")) or None,
        )


def _place(dataset: Any) -> float:
    """Return where a slice lies along its normal, or its number."""
    position, axes = dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient")
    if position is None or axes is None:
        return float(dataset.get("InstanceNumber", 0))
    normal = np.cross(np.asarray(axes[:3], dtype=float), np.asarray(axes[3:], dtype=float))
    return float(normal @ np.asarray(position, dtype=float))


def _read_array(source: Path, paths: list[Path]) -> Iterator[ImageSeries]:
    content = np.load(source, allow_pickle=False)
    arrays = [content] if isinstance(content, np.ndarray) else [content[name] for name in content.files]
    for array in arrays:
        require(
            array.ndim in (2, 3) and array.dtype.kind in "uif",
            f"{source}: holds {array.dtype} of shape {array.shape}; allowed: real (rows, columns) or "
            "(slices, rows, columns)",
        )
    yield from _runs(source, [image for array in arrays for image in (array if array.ndim == 3 else array[None])], None)


def _read_pictures(source: Path, paths: list[Path]) -> Iterator[ImageSeries]:
    from PIL import Image

    images = []
    for path in paths:
        with _named(path), Image.open(path) as picture:
            # 16-bit greyscale is kept, colours become brightness.
            images.append(np.asarray(picture if picture.mode in ("L", "I", "I;16", "F") else picture.convert("L")))
    yield from _runs(source, images, None)


_READERS = {
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
    ".dcm": _read_dicom,
    ".npy": _read_array,
    ".npz": _read_array,
    ".png": _read_pictures,
}


def _runs(
    source: Path, images: Iterable[np.ndarray], pixel_size: tuple[float, float] | None, patient: str | None = None
) -> Iterator[ImageSeries]:
    """Yield neighbouring images of one shape as magnitudes."""
    for _, run in groupby(images, key=lambda image: image.shape):
        stack = np.abs(np.stack(list(run)).astype(np.float32))
        require(bool(np.isfinite(stack).all()), f"{source}: holds a value that is not finite; allowed: finite numbers")
        yield ImageSeries(source, stack, pixel_size, patient)
