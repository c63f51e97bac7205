"""Masks and label maps from files, on the pixels of a posterior file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from direct_deepen.errors import DeepenError, first_line, require
from direct_deepen.posterior.nifti import read_drawn
from direct_deepen.posterior.placement import Grid


def read_labels(path: Path, grid: Grid) -> np.ndarray:
    """Read a mask, or a map of labels, of the images of a posterior file: integers (slice, row, column), zero outside.

    ``.nii`` and ``.nii.gz`` are (column, row, slice), as drawn on the images that
    :func:`~direct_deepen.posterior.nifti.write_nifti` writes; ``.npy``, ``.npz`` of one array and ``.png`` are
    (row, column), which is taken for every slice, or (slice, row, column). Rows and columns are those of the file, or
    cropped about the centre as the NIfTI images are. A boolean mask has the label 1.

    A :class:`DeepenError` for another ending or shape, labels that are no integers or negative, a map without a label,
    and what cannot be read.
    """
    read = next((read for ending, read in _READERS.items() if path.name.lower().endswith(ending)), None)
    require(path.is_file(), f"{path}: no such file")
    if read is None:
        raise DeepenError(f"{path}: no mask; allowed: a name that ends with {', '.join(_READERS)}")
    try:
        found = read(path, grid)
    except DeepenError:
        raise
    except Exception as error:  # Of any reader of a damaged file.
        raise DeepenError(f"{path}: cannot be read: {first_line(error)}") from error
    labels = _integers(path, found)
    slices, rows, columns = grid.shape
    allowed = dict.fromkeys([(rows, columns), grid.cropped_shape])
    require(
        labels.ndim in (2, 3) and labels.shape[-2:] in allowed and labels.shape[:-2] in ((), (slices,)),
        f"{path}: has the shape {labels.shape}; allowed: {' or '.join(map(str, allowed))} of rows and columns, or "
        f"{slices} slices of that",
    )
    whole = labels if labels.shape[-2:] == (rows, columns) else grid.whole(labels)
    return np.broadcast_to(whole, grid.shape)


def rectangle(place: Sequence[int], shape: tuple[int, int, int]) -> np.ndarray:
    """Return a rectangle of pixels as such a map: row and column of its first pixel, from 0, height and width.

    A :class:`DeepenError` if it has no pixel or is not within the images.
    """
    row, column, height, width = place
    slices, rows, columns = shape
    require(
        min(row, column) >= 0 and min(height, width) >= 1 and row + height <= rows and column + width <= columns,
        f"--rectangle is {row} {column} {height} {width}; allowed: row, column, height and width within {rows} rows "
        f"and {columns} columns, from 0",
    )
    labels = np.zeros((rows, columns), dtype=np.int64)
    labels[row : row + height, column : column + width] = 1
    return np.broadcast_to(labels, (slices, rows, columns))


def _integers(path: Path, found: np.ndarray) -> np.ndarray:
    require(
        found.dtype.kind in "buif" and found.size > 0,
        f"{path}: holds {found.dtype} of the shape {found.shape}; allowed: integers, a label a pixel",
    )
    wrong = found[~((found >= 0) & (found < 2**31) & (found == np.rint(found)))] if found.dtype.kind != "b" else []
    require(len(wrong) == 0, f"{path}: holds {'; '.join(f'{label:g}' for label in wrong[:1])}; allowed: integers >= 0")
    require(bool(found.any()), f"{path}: is 0 everywhere; allowed: a label above 0 in a pixel")
    return found.astype(np.int64)


def _read_array(path: Path, grid: Grid) -> np.ndarray:
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        names = content.files
        require(len(names) == 1, f"{path}: holds {', '.join(names) or 'nothing'}; allowed: one array")
        return np.asarray(content[names[0]])


def _read_picture(path: Path, grid: Grid) -> np.ndarray:
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    if pixels.ndim == 2:  # Of a palette the numbers of the colours.
        return pixels
    # Painting programs write grey as colours, opaque.
    grey = pixels[..., 0]
    colours = pixels[..., : 3 if pixels.shape[-1] > 2 else 1]
    require(
        bool((colours == grey[..., None]).all()),
        f"{path}: is a picture of colours; allowed: of grey, 0 where nothing is",
    )
    return grey


_READERS: dict[str, Callable[[Path, Grid], np.ndarray]] = {
    ".nii.gz": read_drawn,
    ".nii": read_drawn,
    ".npy": _read_array,
    ".npz": _read_array,
    ".png": _read_picture,
}
