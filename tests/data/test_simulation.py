"""Laws of volumes that are simulated from images, and of the readers of those."""

import re
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import MRImageStorage, generate_uid

from direct_deepen.cli.main import main
from direct_deepen.data import simulation
from direct_deepen.data.image_files import ImageSeries, read_series
from direct_deepen.data.simulation import (
    Acquisition,
    SimulatedVolume,
    measured_band,
    simulate_volume,
    write_simulated,
)
from direct_deepen.errors import DeepenError
from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.physics.scale import full_sampling_scale


def pictures(num_slices: int = 5, rows: int = 96, columns: int = 80, seed: int = 0) -> np.ndarray:
    """Ellipses with detail down to the pixel, and air around, (slices, rows, columns), integers."""
    generator = np.random.default_rng(seed)
    down, right = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    images = np.zeros((num_slices, rows, columns))
    for image in images:
        for size in (0.8, 0.6, 0.4, 0.2):
            place = generator.normal(0.0, 0.1, 2)
            image[(down - place[0]) ** 2 + 1.3 * (right - place[1]) ** 2 < size**2] = generator.uniform(100, 1000)
    return images.astype(np.int16)


def series(images: np.ndarray | None = None, pixel_size: tuple[float, float] | None = (1.0, 1.0)) -> ImageSeries:
    images = pictures() if images is None else images
    return ImageSeries(Path("head.npy"), images.astype(np.float32), pixel_size)


def draw(seed: int = 0, **acquisition: object) -> SimulatedVolume:
    return simulate_volume(series(), np.random.default_rng(seed), Acquisition(num_slices=2, **acquisition))


def interpolated(image: np.ndarray, factors: tuple[int, int]) -> np.ndarray:
    """Magnitudes of k-space padded with zeros to a multiple of its size, as scanners store images."""
    kspace = fft2(torch.from_numpy(image).to(torch.complex64)).numpy()
    pads = [(0, 0)] + [
        ((factor - 1) * size // 2, (factor - 1) * size // 2)
        for factor, size in zip(factors, image.shape[1:], strict=True)
    ]
    return ifft2(torch.from_numpy(np.pad(kspace, pads))).abs().numpy()


# ---- The volume


def middle(kspace: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    first = [size // 2 - wanted // 2 for size, wanted in zip(kspace.shape[-2:], shape, strict=True)]
    return kspace[..., first[0] : first[0] + shape[0], first[1] : first[1] + shape[1]]


def test_larger_pixels_are_the_middle_of_kspace_of_the_image_with_its_phase(monkeypatch):
    monkeypatch.setattr(simulation, "_SHADING", 0.0)
    fine, coarse = (draw(keep_band=True, pixel_size=(size, size)) for size in (1.0, 1.2))
    assert coarse.image.shape[1:] == (80, 66)
    assert fine.image.shape[1:] == (96, 80)
    found, whole = (fft2(torch.from_numpy(volume.image)).numpy() for volume in (coarse, fine))
    # Unitary transforms of fewer samples of the same image are brighter.
    expected = middle(whole, (80, 66)) * np.sqrt(80 * 66 / (96 * 80))
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_images_are_brighter_by_a_power_of_what_the_coils_see_together(monkeypatch):
    together, draw_coils = [], simulation._draw_coils

    def recorded(*arguments):
        maps, found = draw_coils(*arguments)
        together.append(found)
        return maps, found

    monkeypatch.setattr(simulation, "_draw_coils", recorded)

    volumes = []
    for largest in (0.0, 2.0):
        monkeypatch.setattr(simulation, "_SHADING", largest)
        volumes.append(draw(keep_band=True))
    plain, shaded = (np.abs(volume.image) for volume in volumes)
    power = volumes[1].drawn["shading"]
    assert volumes[0].drawn["shading"] == 0 < power < 2
    # A rounding of single precision.
    np.testing.assert_allclose(shaded, plain * together[1] ** power, rtol=1e-4)
    assert together[1].max() <= 2
    assert together[1].std() > 0.01


def test_coils_see_together_what_their_maps_are_divided_by():
    maps, together = simulation._draw_coils(np.random.default_rng(1), 6, 48, 40)
    np.testing.assert_allclose(np.linalg.norm(maps, axis=0), 1.0, rtol=1e-5)
    assert float(np.median(together)) == pytest.approx(1.0, rel=1e-5)
    # Nearest to a coil its share is largest, and they see most.
    assert np.corrcoef(np.abs(maps).max(axis=0).ravel(), together.ravel())[0, 1] > 0.3


def test_fat_is_bright_and_under_the_skin_and_has_one_angle():
    image = np.zeros((1, 80, 80), np.float32)
    image[:, 10:70, 10:70] = 0.25
    image[:, 10:13, 10:70] = image[:, 38:42, 38:42] = 1.2
    angles = set()
    for seed in range(20):
        phase = simulation._draw_fat_phase(np.random.default_rng(seed), image, (1.0, 1.0))
        angle = float(phase[0, 11, 40])
        angles.add(angle)
        # Bright under the skin; neither what is bright inside, nor what is dark, nor air.
        np.testing.assert_allclose(phase[:, 10:13, 10:70], angle)
        assert not phase[:, 13:].any()
        assert not phase[:, :10].any()
    # None, and another for each of about 0.7 of the volumes: 14 ± 2 of 20.
    assert 0.0 in angles
    assert 8 <= len(angles) - 1 <= 19


def test_kspace_is_that_of_coil_images_with_noise_of_the_stated_deviation():
    volume = draw(size=64, num_coils=(6, 6))
    clean = fft2(torch.from_numpy(volume.image[:, None] * volume.sensitivity_map))
    noise = (volume.kspace - clean.numpy()).view(np.float32).ravel()
    assert volume.kspace.shape == (2, 6, 64, 64)
    # The sample deviation of n normal numbers is off by 1/√(2n), relatively.
    assert noise.std() == pytest.approx(volume.drawn["kspace_noise_std"], rel=5 / np.sqrt(2 * noise.size))
    scale = float(full_sampling_scale(clean).median())
    assert volume.drawn["kspace_noise_std"] == pytest.approx(volume.drawn["noise_std"] * scale, rel=1e-5)
    # Air is zero in the images, and has the noise of every other place after the coils.
    air = ifft2(torch.from_numpy(volume.kspace)).numpy()[
        np.broadcast_to(np.abs(volume.image[:, None]) < 1e-9, volume.kspace.shape)
    ]
    assert air.size > 1000
    assert air.view(np.float32).std() == pytest.approx(volume.drawn["kspace_noise_std"], rel=0.1)


def test_coil_maps_have_root_sum_of_squares_one():
    np.testing.assert_allclose(np.linalg.norm(draw(size=64).sensitivity_map, axis=0), 1.0, atol=1e-5)


def test_what_is_drawn_stays_in_its_range_and_differs():
    volumes = [draw(seed, num_coils=(4, 9), noise_std=(0.003, 0.01), pixel_size=(1.1, 1.4)) for seed in range(20)]
    coils = {len(volume.sensitivity_map) for volume in volumes}
    assert coils <= set(range(4, 10))
    assert len(coils) > 2
    noise = np.array([volume.drawn["noise_std"] for volume in volumes])
    assert 0.003 <= noise.min() < 0.005 < 0.007 < noise.max() <= 0.01
    sizes = np.array([volume.pixel_size for volume in volumes])
    # Whole numbers of pixels, even ones: two of 64 or more, so 3 % from what was drawn.
    assert 1.1 * 0.97 <= sizes.min() < sizes.max() <= 1.4 * 1.03


def test_pixels_keep_the_field_of_view():
    volume = draw(pixel_size=(1.2, 1.2))
    extent = np.array(volume.image.shape[1:]) * volume.pixel_size
    np.testing.assert_allclose(extent, (96.0, 80.0), rtol=1e-6)


def boxes(rows: int, columns: int, sides: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """A bright box from the first to before the last row and column, with noise around, (slices, rows, columns)."""
    (top, bottom), (left, right) = sides
    images = np.abs(np.random.default_rng(0).normal(0.0, 3.0, (2, rows, columns)))
    images[:, top:bottom, left:right] += 100.0
    return images


@pytest.mark.parametrize(("rows", "columns"), [(192, 160), (191, 161)])
def test_all_of_an_object_is_in_the_square_that_is_cut(rows, columns):
    image = boxes(rows, columns, ((30, 80), (61, 118)))
    sides = simulation._sides_of_object(image)
    assert sides == ((30 / rows, 80 / rows), (61 / columns, 118 / columns))
    cuts = [simulation._field_of_view(image, 64, sides, np.random.default_rng(seed)) for seed in range(40)]
    assert {np.count_nonzero(cut[0] > 50) for cut in cuts} == {50 * 57}
    # Anywhere, with a pixel to spare on both sides.
    begins = {int(np.flatnonzero((cut[0] > 50).any(axis=1))[0]) for cut in cuts}
    assert len(begins) > 5
    assert min(begins) >= 1
    assert max(begins) + 50 <= 63


@pytest.mark.parametrize("seed", range(4))
def test_pixels_are_as_large_as_the_object_needs(seed):
    # 120 mm in 95 % of 64 pixels; whole numbers of pixels, even ones.
    box = series(boxes(192, 160, ((30, 150), (60, 150))), (1.0, 1.0))
    drawn = Acquisition(size=64, pixel_size=(0.6, 2.4), whole_object=True, keep_band=True)
    assert min(simulate_volume(box, np.random.default_rng(seed), drawn).pixel_size) >= 120 / (0.95 * 64) * 0.97


def test_an_object_that_does_not_fit_is_cut_on_both_sides():
    box = series(boxes(192, 160, ((20, 172), (16, 144))), (1.0, 1.0))
    drawn = Acquisition(size=64, pixel_size=(1.2, 1.2), whole_object=True)
    image = np.abs(simulate_volume(box, np.random.default_rng(0), drawn).image)
    assert image[:, [0, -1]].mean() > 0.5 * image.mean()
    assert image[:, :, [0, -1]].mean() > 0.5 * image.mean()


def test_a_whole_object_needs_a_size(one_line_error):
    with one_line_error("whole-object", "size"):
        Acquisition(whole_object=True)


def test_nothing_is_known_outside_the_band_that_was_measured():
    """Images that a scanner interpolated twofold become volumes of no more samples than it measured."""
    images = interpolated(pictures(3, 128, 96), (2, 2))
    volume = simulate_volume(series(images, (0.5, 0.5)), np.random.default_rng(0), Acquisition(pixel_size=(0.1, 0.1)))
    assert volume.image.shape[1] <= 128 * 1.05
    assert volume.image.shape[2] <= 96 * 1.05
    assert volume.image.shape[1] >= 128 * 0.8


def test_the_band_is_kept_on_demand():
    images = interpolated(pictures(3, 128, 96), (2, 2))
    kept = Acquisition(pixel_size=(0.1, 0.1), keep_band=True)
    volume = simulate_volume(series(images, (0.5, 0.5)), np.random.default_rng(0), kept)
    assert volume.image.shape[1:] == images.shape[1:]


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("factor", [1, 2])
def test_the_measured_band_is_found_along_each_axis(axis, factor):
    images = interpolated(pictures(3, 128, 128), (factor, 1) if axis == -2 else (1, factor))
    kspace = fft2(torch.from_numpy(images).to(torch.complex64)).numpy()
    # In steps of a twentieth; magnitudes of interpolated images leave a little beyond the band.
    assert measured_band(kspace, axis) == pytest.approx(1 / factor, abs=0.1)
    assert measured_band(kspace, -3 - axis) == pytest.approx(1.0, abs=0.1)


def test_intensities_do_not_depend_on_the_unit_of_the_images():
    kwargs = {"acquisition": Acquisition(num_slices=2)}
    one = simulate_volume(series(), np.random.default_rng(1), **kwargs)
    other = simulate_volume(series(7 * pictures().astype(np.float32)), np.random.default_rng(1), **kwargs)
    np.testing.assert_allclose(other.kspace, one.kspace, rtol=0, atol=1e-5 * np.abs(one.kspace).max())


def test_a_seed_draws_the_same_and_leaves_global_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is what the test watches
    assert draw(3).kspace.tobytes() == draw(3).kspace.tobytes()
    assert draw(3).kspace.tobytes() != draw(4).kspace.tobytes()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# ---- Readers


def write_nifti(folder: Path, images: np.ndarray) -> None:
    # Right, front, up: columns, rows from below, slices.
    volume = images[:, ::-1].transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.7, 0.8, 5.0, 1.0])), folder / "head.nii.gz")


def write_turned_nifti(folder: Path, images: np.ndarray) -> None:
    """The same, stored from left to right and with the slices as first axis."""
    volume = images[:, ::-1, ::-1].transpose(0, 2, 1)
    affine = np.array([[0, -0.7, 0, 0], [0, 0, 0.8, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(volume, affine), folder / "head.nii")


def write_dicom(folder: Path, images: np.ndarray) -> None:
    """Files whose names are not in the order of the slices, of a patient."""
    uid = generate_uid()
    for index, image in enumerate(images):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset = FileDataset(str(folder), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SeriesInstanceUID, dataset.PatientID, dataset.Modality = uid, "P7", "MR"
        dataset.Rows, dataset.Columns = image.shape
        dataset.PixelSpacing = [0.8, 0.7]
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 5.0 * index]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.PixelData = image.astype("<u2").tobytes()
        dataset.save_as(folder / f"{(3 * index) % 7}.dcm", enforce_file_format=True)


def write_npy(folder: Path, images: np.ndarray) -> None:
    np.save(folder / "head.npy", images)


def write_npz(folder: Path, images: np.ndarray) -> None:
    np.savez(folder / "head.npz", **{f"s{index:03d}": image for index, image in enumerate(images)})


def write_png(folder: Path, images: np.ndarray) -> None:
    for index, image in enumerate(images):
        Image.fromarray(image.astype(np.uint16)).save(folder / f"{index:02d}.png")


WRITERS = [write_nifti, write_turned_nifti, write_dicom, write_npy, write_npz, write_png]


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_images(tmp_path, write):
    write(tmp_path, pictures())
    (tmp_path / "notes.txt").write_text("no image")
    (found,) = read_series(tmp_path)
    np.testing.assert_array_equal(found.images, pictures())
    assert found.images.dtype == np.float32
    if write in (write_nifti, write_turned_nifti, write_dicom):
        assert found.pixel_size == pytest.approx((0.8, 0.7))
    else:
        assert found.pixel_size is None
    assert found.patient == ("P7" if write is write_dicom else None)


def test_isotropic_volumes_are_cut_axially(tmp_path):
    volume = np.random.default_rng(0).random((8, 9, 10)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 1.0, 1.0])), tmp_path / "t1.nii")
    (found,) = read_series(tmp_path)
    np.testing.assert_array_equal(found.images, volume.transpose(2, 1, 0)[:, ::-1])


def test_slices_of_several_shapes_are_several_series(tmp_path):
    np.savez(tmp_path / "all.npz", a=pictures(2), b=pictures(3, 64, 64), c=pictures(1))
    assert [found.images.shape for found in read_series(tmp_path)] == [(2, 96, 80), (3, 64, 64), (1, 96, 80)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.ones((4, 4), dtype=complex), "complex128 of shape (4, 4); allowed: real"),
        ("a.npy", np.ones((2, 2, 4, 4)), "shape (2, 2, 4, 4); allowed: real"),
        ("a.npy", np.full((4, 4), np.nan), "not finite"),
        ("a.npy", b"\x93NUMPY broken", "cannot be read"),
        ("a.nii", b"broken", "cannot be read"),
        ("a.dcm", b"broken", "cannot be read"),
        ("a.png", b"broken", "cannot be read"),
        ("a.npz", b"broken", "cannot be read"),
        ("a.txt", b"text", "holds no images; allowed: files *.nii"),
    ],
)
def test_a_file_that_is_no_image_is_named_in_one_line(tmp_path, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(DeepenError, match=re.escape(message)) as caught:
        list(read_series(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


# ---- Files


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Images of four subjects, one of them with two scans."""
    folder = tmp_path_factory.mktemp("archive")
    for subject, scan in (("01", "T1"), ("01", "T2"), ("02", "T1"), ("03", "T1"), ("04", "T1")):
        place = folder / f"sub-{subject}" / "anat"
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"sub-{subject}_{scan}.npy", pictures(4, 80, 80, seed=int(subject)))
    return folder


SMALL = ["--size", "64", "--slices", "2", "--coils", "2", "3", "--seed", "5"]


def test_subjects_are_split_and_files_say_where_they_come_from(archive, tmp_path, capsys):
    assert main(["simulate", str(archive), str(tmp_path), *SMALL, "--repeats", "2"]) == 0
    subjects: dict[str, set[str]] = {}
    for path in sorted(tmp_path.rglob("*.h5")):
        with h5py.File(path) as file:
            attributes = dict(file.attrs)
            assert file["kspace"].shape[-2:] == (64, 64)
            clean = fft2(torch.from_numpy(file["simulated_image"][()][:, None] * file["simulated_sensitivity_map"][()]))
            assert (file["kspace"] - clean.numpy()).view(np.float32).std() == pytest.approx(
                attributes["kspace_noise_std"], rel=0.1
            )
        assert (archive / attributes["source"]).exists()
        assert len(attributes["source_sha256"]) == 64
        assert attributes["subject"] in attributes["source"]
        subjects.setdefault(path.parent.name, set()).add(attributes["subject"])
    assert sorted(name for names in subjects.values() for name in names) == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert {part: len(names) for part, names in subjects.items()} == {"training": 2, "validation": 1, "test": 1}
    # Four slices make two volumes, drawn twice.
    assert len(list(tmp_path.rglob("*.h5"))) == 5 * 2 * 2
    assert "volumes to" in capsys.readouterr().out


def test_a_volume_does_not_depend_on_what_else_is_there(archive, tmp_path):
    arguments = {"seed": 5, "acquisition": Acquisition(num_slices=2, size=64), "held_out": {"test": ["sub-02"]}}
    write_simulated(archive, tmp_path / "all", **arguments)
    name = Path("sub-02", "anat", "sub-02_T1.npy")
    (tmp_path / "one" / name).parent.mkdir(parents=True)
    (tmp_path / "one" / name).write_bytes((archive / name).read_bytes())
    (path,) = sorted(write_simulated(tmp_path / "one", tmp_path / "alone", **arguments)["test"])[:1]
    with h5py.File(path) as alone, h5py.File(tmp_path / "all" / "test" / path.name) as among:
        np.testing.assert_array_equal(alone["kspace"][()], among["kspace"][()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test-subjects", "sub-09"], "test subject is 'sub-09', which is not there"),
        (["--test-subjects", "sub-01", "--validation-subjects", "sub-01"], "named twice"),
        (["--subject", "anat"], "found 1 subjects (anat); allowed: three or more"),
        (["--subject", "("], "subject is '('"),
        (["--repeats", "0"], "repeats is 0"),
        (["--coils", "5", "3"], "coils is 5 3; allowed: 1 <= least <= most"),
        (["--noise-std", "0", "1"], "noise-std is 0"),
        (["--size", "16"], "size is 16"),
        (["--slices", "0"], "slices is 0"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(archive, tmp_path, arguments, message, capsys):
    assert main(["simulate", str(archive), str(tmp_path / "out"), "--seed", "1", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_volumes_are_not_written_among_the_images(archive, capsys):
    assert main(["simulate", str(archive), str(archive / "out"), "--seed", "1"]) == 2
    assert "lies in" in capsys.readouterr().err
    assert not (archive / "out").exists()
