"""Masks of regions from files: on which pixels of a posterior file they fall, and which are refused."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image

from direct_deepen.posterior.label_map import read_labels, rectangle
from direct_deepen.posterior.nifti import write_nifti
from direct_deepen.posterior.placement import Grid
from direct_deepen.posterior.posterior_file import PosteriorVolume

SHAPE = SLICES, ROWS, COLUMNS = 3, 12, 10
CROPPED = {"reconstruction_size": [7.0, 5.0], "voxel_size": [0.9, 1.1, 4.0]}
AFFINE = np.array([[0.1, -0.9, 0.2, 5], [-1.1, -0.05, 0.1, 7], [0.0, 0.2, 4.0, -9], [0, 0, 0, 1]])
ATTRIBUTES = {
    "plain": {},
    "cropped": CROPPED,
    "placed": {"affine": AFFINE.ravel().tolist()},
    "cropped and placed": CROPPED | {"affine": AFFINE.ravel().tolist()},
}


@pytest.fixture
def labels() -> np.ndarray:
    """Asymmetric about every axis, within what is cropped of rows and columns."""
    found = np.zeros(SHAPE, dtype=np.int64)
    found[0, 3:5, 3] = 1
    found[1, 7, 4:7] = 2
    found[2, 3, 6] = 1
    return found


def written(path: Path, attributes: dict, labels: np.ndarray) -> Path:
    """A NIfTI image of the package that shows the labels as its mean, as far as it shows them."""
    volume = PosteriorVolume(path, {"mean": labels.astype(np.complex64)}, attributes)
    return write_nifti(volume, path)[0]


@pytest.mark.parametrize("attributes", ATTRIBUTES.values(), ids=ATTRIBUTES)
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_what_is_drawn_on_a_written_image_falls_on_the_pixels_it_shows(tmp_path, labels, attributes, kind):
    shown = nibabel.load(written(tmp_path / "a.nii.gz", attributes, labels))
    # As a program for drawing writes it: another number type, the header of the image.
    drawn = nibabel.Nifti1Image(np.asarray(shown.dataobj).astype(kind), shown.affine, shown.header)
    drawn.set_data_dtype(kind)
    nibabel.save(drawn, tmp_path / "mask.nii")
    found = read_labels(tmp_path / "mask.nii", Grid.of(Path("a.posterior.h5"), SHAPE, attributes))
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRA", "PIR"])
def test_axes_that_were_turned_since_are_turned_back(tmp_path, labels, axes):
    attributes = ATTRIBUTES["cropped and placed"]
    shown = nibabel.load(written(tmp_path / "a.nii", attributes, labels))
    turn = ornt_transform(nibabel.io_orientation(shown.affine), axcodes2ornt(axes))
    nibabel.save(shown.as_reoriented(turn), tmp_path / "mask.nii.gz")
    found = read_labels(tmp_path / "mask.nii.gz", Grid.of(Path("a.posterior.h5"), SHAPE, attributes))
    np.testing.assert_array_equal(found, labels)


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path, labels, one_line_error):
    attributes = ATTRIBUTES["placed"]
    shown = nibabel.load(written(tmp_path / "a.nii", attributes, labels))
    moved = shown.affine.copy()
    moved[2, 3] += 4.0
    nibabel.save(nibabel.Nifti1Image(shown.get_fdata(), moved), tmp_path / "mask.nii")
    with one_line_error("mask.nii", "4 mm", "--nifti"):
        read_labels(tmp_path / "mask.nii", Grid.of(Path("a.posterior.h5"), SHAPE, attributes))


def test_cropping_and_its_inverse_are_those_of_the_written_images(labels):
    for size in ([7, 5], [8, 4], [20, 3], [12, 10]):
        grid = Grid.of(Path("a.posterior.h5"), SHAPE, {"reconstruction_size": size})
        cropped = grid.cropped(labels + 1)
        assert cropped.shape[1:] == grid.cropped_shape == (min(size[0], ROWS), min(size[1], COLUMNS))
        whole = grid.whole(cropped)
        assert whole.shape == SHAPE
        np.testing.assert_array_equal(grid.cropped(whole), cropped)
        np.testing.assert_array_equal(whole[whole > 0], (labels + 1)[whole > 0])


WRITERS = {
    "npy": lambda path, array: np.save(path, array),
    "npz": lambda path, array: np.savez(path, array),
    "png": lambda path, array: Image.fromarray(array.astype(np.uint8)).save(path),
    "colours.png": lambda path, array: Image.fromarray(np.stack([array.astype(np.uint8)] * 3, -1)).save(path),
    "opaque.png": lambda path, array: Image.fromarray(
        np.stack([*[array.astype(np.uint8)] * 3, np.full_like(array, 255, np.uint8)], -1)
    ).save(path),
    "palette.png": lambda path, array: _in_palette(array).save(path),
    "deep.png": lambda path, array: Image.fromarray(array.astype(np.uint16)).save(path),
}


def _in_palette(array: np.ndarray) -> Image.Image:
    picture = Image.fromarray(array.astype(np.uint8), mode=None)
    picture.putpalette([7, 8, 9, 250, 0, 0, 0, 250, 0])
    return picture


@pytest.mark.parametrize("kind", WRITERS)
def test_a_mask_of_one_slice_is_that_of_all(tmp_path, labels, kind):
    one = labels.max(axis=0)
    WRITERS[kind](tmp_path / f"mask.{kind}", one)
    found = read_labels(tmp_path / f"mask.{kind}", Grid.of(Path("a.posterior.h5"), SHAPE, {}))
    np.testing.assert_array_equal(found, np.stack([one] * SLICES))
    # What is cropped as the NIfTI images are is taken for what it shows.
    grid = Grid.of(Path("a.posterior.h5"), SHAPE, CROPPED)
    WRITERS[kind](tmp_path / f"mask.{kind}", grid.cropped(one))
    np.testing.assert_array_equal(read_labels(tmp_path / f"mask.{kind}", grid), found)


def test_masks_of_all_slices_and_of_truth_values(tmp_path, labels):
    np.save(tmp_path / "a.npy", labels > 0)
    np.testing.assert_array_equal(
        read_labels(tmp_path / "a.npy", Grid.of(Path("a.posterior.h5"), SHAPE, {})), labels > 0
    )
    image = nibabel.Nifti1Image(labels.max(axis=0).T.astype(np.uint8), None)
    nibabel.save(image, tmp_path / "a.nii")
    found = read_labels(tmp_path / "a.nii", Grid.of(Path("a.posterior.h5"), SHAPE, ATTRIBUTES["placed"]))
    np.testing.assert_array_equal(found, np.stack([labels.max(axis=0)] * SLICES))


def test_a_rectangle_is_counted_from_zero(one_line_error):
    found = rectangle([2, 3, 4, 5], SHAPE)
    expected = np.zeros(SHAPE, dtype=int)
    expected[:, 2:6, 3:8] = 1
    np.testing.assert_array_equal(found, expected)
    for place in ([-1, 0, 2, 2], [0, 0, 0, 3], [9, 0, 4, 2], [0, 8, 1, 3]):
        with one_line_error(f"--rectangle is {' '.join(map(str, place))}", "12 rows and 10 columns"):
            rectangle(place, SHAPE)


def write_array(path: Path, array: object) -> None:
    np.save(path, np.asarray(array))


REFUSED = {
    "another ending": ("a.mgz", lambda path: path.write_bytes(b""), ["a.mgz", ".nii.gz", ".png"]),
    "no file": ("a.npy", lambda path: None, ["a.npy: no such file"]),
    "text": ("a.npy", lambda path: path.write_text("no array"), ["a.npy: cannot be read"]),
    "no NIfTI": ("a.nii.gz", lambda path: path.write_text("no image"), ["a.nii.gz: cannot be read"]),
    "no PNG": ("a.png", lambda path: path.write_text("no picture"), ["a.png: cannot be read"]),
    "another shape": ("a.npy", lambda path: write_array(path, np.ones((5, 6))), ["(5, 6)", "(12, 10) or (7, 5)"]),
    "two slices": ("a.npy", lambda path: write_array(path, np.ones((2, 12, 10))), ["(2, 12, 10)", "3 slices"]),
    "four axes": ("a.npy", lambda path: write_array(path, np.ones((1, 3, 12, 10))), ["(1, 3, 12, 10)"]),
    "a fraction": ("a.npy", lambda path: write_array(path, np.full((12, 10), 0.5)), ["holds 0.5", "integers"]),
    "below zero": ("a.npy", lambda path: write_array(path, np.full((12, 10), -3)), ["holds -3", ">= 0"]),
    "no number": ("a.npy", lambda path: write_array(path, np.full((12, 10), np.nan)), ["holds nan"]),
    "complex": ("a.npy", lambda path: write_array(path, np.ones((12, 10), complex)), ["holds complex128"]),
    "nothing": ("a.npy", lambda path: write_array(path, np.zeros((12, 10))), ["0 everywhere"]),
    "several arrays": ("a.npz", lambda path: np.savez(path, a=np.ones(1), b=np.ones(1)), ["holds a, b", "one array"]),
    "colours": (
        "a.png",
        lambda path: Image.new("RGB", (10, 12), (200, 0, 0)).save(path),
        ["colours", "allowed: of grey"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_mask_is_refused_in_one_line(tmp_path, one_line_error, name):
    file, write, words = REFUSED[name]
    write(tmp_path / file)
    with one_line_error(str(tmp_path / file), *words):
        read_labels(tmp_path / file, Grid.of(Path("a.posterior.h5"), SHAPE, CROPPED))


def test_the_grid_of_a_file_without_attributes_is_the_whole(labels):
    grid = Grid.of(Path("a.posterior.h5"), SHAPE, {})
    assert grid.affine is None
    assert grid.cropped_shape == (ROWS, COLUMNS)
    np.testing.assert_array_equal(grid.cropped(labels), labels)
    # Where a corner was cut away, the first pixel lies elsewhere.
    placed = Grid.of(Path("a.posterior.h5"), SHAPE, ATTRIBUTES["cropped and placed"])
    np.testing.assert_allclose(placed.affine[:, 3], AFFINE @ [2, 2, 0, 1])
