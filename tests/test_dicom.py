"""Posterior files as DICOM series: what is in them, where it lies, and what they do not tell."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage
from scipy.spatial.transform import Rotation

from direct_deepen.data.image_files import read_series
from direct_deepen.posterior.dicom import write_dicom
from direct_deepen.posterior.nifti import write_nifti
from direct_deepen.posterior.posterior_file import PosteriorVolume

SHAPE = SLICES, ROWS, COLUMNS = 3, 12, 10
UNIT = 1e-5
"""The intensities of fastMRI's files are of this size."""


def oblique_affine() -> np.ndarray:
    """Voxels of 1.1×0.9 mm, 5 mm apart, along no axis of the patient."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [20, -15, 40], degrees=True).as_matrix() @ np.diag([0.9, 1.1, 5.0])
    affine[:3, 3] = [-30, 12, 44]
    return affine


VOXELS = {"voxel_size": [1.1, 0.9, 4.5]}
PLACED = {**VOXELS, "affine": oblique_affine().ravel(), "reconstruction_size": [8.0, 5.0]}


def volume_of(*names: str, **attributes: object) -> PosteriorVolume:
    """A volume with some of map, mean, image and std, whose data are of somebody."""
    generator = np.random.default_rng(0)
    draws = {name: UNIT * generator.standard_normal((*SHAPE, 2)) @ [1, 1j] for name in ("map", "mean", "image", "std")}
    draws["std"] = 0.1 * np.abs(draws["std"])
    told = {"data": "/data/doe_jane.h5", "name": "doe_jane.h5", "configuration": "path: /home/doe", "num_samples": 8}
    told |= {"units": "map, mean: of the k-space"}
    return PosteriorVolume(Path("out/doe_jane.posterior.h5"), {name: draws[name] for name in names}, told | attributes)


def series_of(paths: list[Path]) -> dict[str, list[pydicom.Dataset]]:
    """The datasets of files by the description of their series."""
    found: dict[str, list[pydicom.Dataset]] = {}
    for path in paths:
        dataset = pydicom.dcmread(path)
        found.setdefault(dataset.SeriesDescription, []).append(dataset)
    return found


def real_values(dataset: pydicom.Dataset) -> np.ndarray:
    (mapping,) = dataset.RealWorldValueMappingSequence
    return dataset.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept


# ---- What is in them


@pytest.mark.parametrize(
    ("names", "description"),
    [
        (("map", "mean", "std"), "DEEPEN posterior mean"),
        (("map",), "DEEPEN MAP"),
        (("image",), "direct-deepen reconstruction"),
    ],
)
def test_the_reconstruction_that_was_asked_for_and_its_deviation_are_a_series_each(tmp_path, names, description):
    volume = volume_of(*names, **PLACED)
    found = series_of(write_dicom(volume, tmp_path / "new" / "dicom"))
    deviation = ["DEEPEN standard deviation"] if "std" in names else []
    assert list(found) == [description, *deviation]
    kinds = [[name for name in names if name != "std"][-1], *(["std"] if deviation else [])]
    for kind, (number, datasets) in zip(kinds, enumerate(found.values(), start=1), strict=True):
        expected = np.abs(volume.arrays[kind])[:, 2:10, 2:7]
        images = np.stack([real_values(dataset) for dataset in datasets])
        # Half a step of whole numbers, and rounding.
        np.testing.assert_allclose(images, expected, rtol=0, atol=0.5001 * expected.max() / 65535)
        assert max(dataset.pixel_array.max() for dataset in datasets) == 65535
        assert [dataset.InstanceNumber for dataset in datasets] == [1, 2, 3]
        assert {dataset.SeriesNumber for dataset in datasets} == {number}
        assert all(dataset.ImageType[:2] == ["DERIVED", "SECONDARY"] for dataset in datasets)
        assert all("num_samples 8" in dataset.DerivationDescription for dataset in datasets)
        assert all(dataset.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian" for dataset in datasets)


def test_the_window_shows_black_at_zero_and_white_at_the_brightest_of_the_series(tmp_path):
    datasets = series_of(write_dicom(volume_of("map", **PLACED), tmp_path))["DEEPEN MAP"]
    stored = np.concatenate([dataset.pixel_array.ravel() for dataset in datasets])
    for dataset in datasets:
        centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
        # By the standard black and white are these.
        black, white = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        assert black == 0
        assert white == pytest.approx(np.quantile(stored, 0.999), abs=1)


def test_a_volume_of_zeros_is_written_as_zeros(tmp_path):
    volume = volume_of("map", **PLACED)
    empty = replace(volume, arrays={"map": 0 * volume.arrays["map"]})
    for path in write_dicom(empty, tmp_path):
        assert not real_values(pydicom.dcmread(path)).any()


def test_our_own_reader_finds_the_same_images(tmp_path):
    volume = volume_of("map", "std", **PLACED)
    write_dicom(volume, tmp_path)
    found = list(read_series(tmp_path))
    assert len(found) == 2
    for series, kind in zip(found, ("map", "std"), strict=True):
        expected = np.abs(volume.arrays[kind])[:, 2:10, 2:7]
        # Along the normal slices are in the order of the file.
        np.testing.assert_allclose(series.images / 65535 * expected.max(), expected, rtol=0, atol=1e-5 * expected.max())
        assert series.pixel_size == pytest.approx((1.1, 0.9))
        assert series.patient is None


def test_slices_that_are_not_to_be_trusted_say_so(tmp_path):
    volume = volume_of("mean", "std", **PLACED)
    doubtful = replace(volume, arrays={**volume.arrays, "residual": np.array([1.0, 17.0, 1.0])})
    for datasets in series_of(write_dicom(doubtful, tmp_path)).values():
        comments = [dataset.get("ImageComments") for dataset in datasets]
        assert comments == [None, "not to be trusted: residual is 17, above 12", None]


# ---- Where it lies


def test_a_pixel_is_where_nifti_has_it(tmp_path):
    volume = volume_of("mean", "std", **PLACED)
    image = nibabel.load(write_nifti(volume, tmp_path / "a.nii")[0])
    for datasets in series_of(write_dicom(volume, tmp_path)).values():
        for number, dataset in enumerate(datasets):
            cosines = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
            np.testing.assert_allclose(cosines @ cosines.T, np.eye(2), atol=1e-9)
            height, width = (float(length) for length in dataset.PixelSpacing)
            assert (height, width) == pytest.approx((1.1, 0.9))
            for row, column in ((0, 0), (dataset.Rows - 1, 0), (3, dataset.Columns - 1)):
                corner = np.array(dataset.ImagePositionPatient, dtype=float)
                place = corner + column * width * cosines[0] + row * height * cosines[1]
                expected = nibabel.affines.apply_affine(image.affine, (column, row, number))
                np.testing.assert_allclose(place * [-1, -1, 1], expected, atol=0.01)
                if dataset.SeriesNumber == 1:
                    value = image.dataobj[column, row, number]
                    assert real_values(dataset)[row, column] == pytest.approx(value, abs=UNIT / 1000)
            assert float(dataset.SliceThickness) == 4.5
            assert float(dataset.SpacingBetweenSlices) == pytest.approx(5.0)


def test_without_a_position_there_is_none_and_the_series_says_so(tmp_path):
    for attributes, voxels in ((VOXELS, "1.1×0.9×4.5 mm"), ({}, "unknown")):
        paths = write_dicom(volume_of("map", "std", **attributes), tmp_path)
        for dataset in map(pydicom.dcmread, paths):
            assert dataset.SOPClassUID == SecondaryCaptureImageStorage
            assert not {"ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"} & set(dataset.dir())
            assert dataset.get("PixelSpacing") == (VOXELS["voxel_size"][:2] if attributes else None)
            assert dataset.SeriesDescription.endswith("position unknown")
            assert voxels in dataset.ImageComments


# ---- Identifiers, and who is not named


def test_a_file_gives_the_same_series_twice_and_another_file_others(tmp_path):
    volume = volume_of("mean", "std", **PLACED)
    first = [path.read_bytes() for path in write_dicom(volume, tmp_path / "a")]
    moved = replace(volume, path=Path("elsewhere.posterior.h5"))
    assert [path.read_bytes() for path in write_dicom(moved, tmp_path / "b")] == first
    datasets = [pydicom.dcmread(path) for path in sorted((tmp_path / "a").iterdir())]
    assert {dataset.SOPClassUID for dataset in datasets} == {MRImageStorage}
    counts = {"SOPInstanceUID": 6, "SeriesInstanceUID": 2, "StudyInstanceUID": 1, "FrameOfReferenceUID": 1}
    assert {name: len({dataset[name].value for dataset in datasets}) for name in counts} == counts
    arrays = {**volume.arrays, "std": 2 * volume.arrays["std"]}
    others = [
        pydicom.dcmread(path)
        for other in (replace(volume, arrays=arrays), volume_of("mean", "std", **PLACED, seed=1))
        for path in write_dicom(other, tmp_path / "c")
    ]
    for name in counts:
        assert not {dataset[name].value for dataset in datasets} & {dataset[name].value for dataset in others}


def test_nobody_and_no_file_is_named(tmp_path):
    paths = write_dicom(volume_of("mean", "std", **PLACED), tmp_path)
    for path in paths:
        assert b"doe" not in path.read_bytes().lower()
        dataset = pydicom.dcmread(path)
        named = {name for name in dataset.dir() if name.startswith(("Patient", "Study", "Accession", "Referring"))}
        assert {name for name in named if dataset[name].value} == {"StudyInstanceUID"}
        assert dataset.BurnedInAnnotation == "NO"
    assert not any("doe" in path.name for path in paths)


def test_what_an_earlier_volume_left_is_removed_and_nothing_else(tmp_path):
    volume = volume_of("mean", "std", **PLACED)
    write_dicom(volume, tmp_path)
    (tmp_path / "scout_0001.dcm").write_bytes(b"of a scanner")
    alone = replace(volume, arrays={"map": volume.arrays["mean"][:1]})
    write_dicom(alone, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map_0001.dcm", "scout_0001.dcm"]


# ---- The validator


@pytest.mark.parametrize("attributes", [PLACED, {**PLACED, "voxel_size": [1.0, 1.0, 1.0]}, VOXELS, {}])
def test_the_validator_of_dicom3tools_finds_no_error(tmp_path, attributes):
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("needs dciodvfy: Debian's package dicom3tools is not installed")
    volume = volume_of("mean", "std", **attributes)
    doubtful = replace(volume, arrays={**volume.arrays, "residual": np.array([1.0, 17.0, 1.0])})
    for path in write_dicom(doubtful, tmp_path):
        result = subprocess.run([validator, path], capture_output=True, text=True, check=False)
        told = (result.stdout + result.stderr).splitlines()
        assert any(line in ("MRImage", "SCImage") for line in told), told
        assert [line for line in told if line.startswith("Error")] == []


# ---- What is refused


def changed(name: str, value: object) -> PosteriorVolume:
    return volume_of("mean", "std", **{**PLACED, name: value})


def sheared_affine() -> np.ndarray:
    affine = oblique_affine()
    affine[:3, 1] += 0.1 * affine[:3, 0]
    return affine.ravel()


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (volume_of("std"), ("holds none of map, mean, image",)),
        (replace(volume_of("mean"), arrays={"mean": np.zeros((2, 3))}), ("mean", "(2, 3)")),
        (replace(volume_of("mean"), arrays={"mean": np.full((1, 2, 3), b"a")}), ("mean", "|S1")),
        (changed("affine", sheared_affine()), ("rows and columns", "cosine 0.0")),
        (changed("affine", np.zeros(16)), ("affine", "inverted")),
        (changed("affine", np.full(16, np.nan)), ("affine", "16 finite numbers")),
        (changed("affine", "unknown"), ("affine", "16 finite numbers")),
        (changed("voxel_size", [1.0, -1.0, 5.0]), ("voxel_size", "3 positive numbers")),
        (changed("reconstruction_size", [8.0]), ("reconstruction_size", "2 positive numbers")),
    ],
)
def test_files_that_cannot_be_series_are_one_line(tmp_path, one_line_error, volume, words):
    with one_line_error("doe_jane.posterior.h5", *words):
        write_dicom(volume, tmp_path / "dicom")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["mean", "std"])
def test_values_that_are_not_finite_are_one_line(tmp_path, one_line_error, kind):
    volume = volume_of("mean", "std", **PLACED)
    volume.arrays[kind][1, 5, 5] = np.nan
    with one_line_error("doe_jane.posterior.h5", kind, "finite"):
        write_dicom(volume, tmp_path / "dicom")
    assert not list(tmp_path.iterdir())


def test_without_pydicom_the_extra_is_named(tmp_path, one_line_error, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with one_line_error("pip install 'direct-deepen[dicom]'"):
        write_dicom(volume_of("mean"), tmp_path / "dicom")


def test_a_folder_that_cannot_be_made_and_a_full_disk_are_one_line(tmp_path, one_line_error, full_disk):
    (tmp_path / "file").write_text("text")
    with one_line_error("file", "cannot be written"):
        write_dicom(volume_of("mean"), tmp_path / "file")
    with full_disk(), one_line_error("mean_0001.dcm", "No space left"):
        write_dicom(volume_of("mean"), tmp_path / "full")
    assert not list((tmp_path / "full").iterdir())
