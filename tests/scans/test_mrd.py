"""Raw data of ISMRMRD: lines are sorted by what their headers say, and what is no line of an image is told apart."""

import h5py
import ismrmrd
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from scan_files import acquisition, lines_of, mrd_header, write_mrd

from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.posterior.dicom import write_dicom
from direct_deepen.posterior.nifti import write_nifti
from direct_deepen.posterior.posterior_file import read_posterior
from direct_deepen.scans.affine import affine_of
from direct_deepen.scans.preparation import Choices, prepare
from direct_deepen.scans.reading import open_scan
from direct_deepen.scans.reconstruction import Method, Run, pretrained_prior

HEADER = mrd_header(64, 64)


@pytest.fixture
def opened(tmp_path):
    """``opened(acquisitions, header)``: the scan of a file, and what it is as a problem by number."""

    def write(acquisitions, header=HEADER):
        return write_mrd(tmp_path / "a.h5", acquisitions, header)

    return write


def noise_like(shape, seed=0):
    draws = np.random.default_rng(seed).normal(size=(*shape, 2))
    return (draws @ [1, 1j]).astype(np.complex64)


def test_images_are_told_apart_and_averages_are_averaged(opened, kspace):
    one = lines_of(kspace[:1], contrast=1, average=0) + lines_of(3 * kspace[:1], contrast=1, average=1)
    # A line that is there once is not halved.
    other = lines_of(kspace[1:], contrast=0, repetition=2, average=0)
    with open_scan(opened(one + other)) as scan:
        assert scan.kspace.shape == (2, 4, 64, 64)
        assert scan.labels == ("contrast 1, repetition 3", "contrast 2, repetition 1")
        assert scan.places == ((0, 0), (0, 1))
        assert scan.remarks == ["2 averages, averaged"]
        np.testing.assert_allclose(scan.kspace[0], kspace[1], rtol=1e-6)
        np.testing.assert_allclose(scan.kspace[1], 2 * kspace[0], rtol=1e-6)
        np.testing.assert_allclose(scan.kspace[(1, 3)], 2 * kspace[0, 3], rtol=1e-6)


def test_partial_fourier_and_partial_echo_lie_where_their_centre_is(opened, kspace):
    # The first ten lines were not measured, and twelve samples of every echo.
    found = [
        acquisition(kspace[0, :, 12:, column], kspace_encode_step_1=column - 10, center_sample=20)
        for column in range(10, 64)
    ]
    with open_scan(opened(found, mrd_header(64, 64, centre=22))) as scan:
        expected = kspace[0].copy()
        expected[:, :12] = expected[..., :10] = 0
        np.testing.assert_array_equal(scan.kspace[0], expected)
        np.testing.assert_array_equal(scan.mask[0], expected[0] != 0)
        assert prepare(scan).size == (64, 64)


def test_samples_to_discard_are(opened, kspace):
    def padded(line):
        ends = np.full((len(line), 3), 7)
        return np.concatenate([ends, line, ends[:, :2]], axis=1)

    found = [
        acquisition(padded(kspace[0, :, :, c]), kspace_encode_step_1=c, discard_pre=3, discard_post=2, center_sample=35)
        for c in range(64)
    ]
    with open_scan(opened(found)) as scan:
        np.testing.assert_array_equal(scan.kspace[0], kspace[0])


def test_the_noise_scan_whitens_and_is_the_level_of_its_bandwidth(opened, kspace):
    # Noise of one coil three times that of the others; the scan of it has a quarter of the bandwidth, half the noise.
    gains = np.array([1, 3, 1, 1])[:, None, None]
    eta = 2e-3 * np.abs(kspace).max()
    noisy = kspace[:1] + eta * gains * noise_like((1, 4, 64, 64))
    scan_of_noise = 0.5 * eta * gains[..., 0] * noise_like((4, 20_000), seed=1)
    noise = acquisition(scan_of_noise, ("IS_NOISE_MEASUREMENT",), sample_time_us=20.0)
    with open_scan(opened([noise, *lines_of(noisy)])) as scan:
        assert scan.kspace.shape == (1, 4, 64, 64)
        prepared = prepare(scan).slice(0)
    # σ̄² is the harmonic mean of the variances: 4/(3 + 1/9).
    level = eta * (4 / (3 + 1 / 9)) ** 0.5
    # 20,000 samples have a standard error of 0.4 % a coil.
    assert prepared.noise_std == pytest.approx(level, rel=0.02)
    assert "of the noise scan" in prepared.found["noise level"]
    A = prepared.problem.A
    residual = prepared.problem.masked_kspace - A.forward(A.adjoint(prepared.problem.masked_kspace))
    coils = residual[0].abs().square().mean(dim=(1, 2)).sqrt()
    # What no image explains is noise, of which the operator takes a quarter: now alike in all coils.
    assert float(coils.max() / coils.min()) < 1.5


def test_readout_oversampling_is_removed(opened, kspace):
    image = ifft2(torch.from_numpy(kspace))
    wide = torch.zeros(2, 4, 128, 64, dtype=image.dtype)
    wide[..., 32:96, :] = image
    oversampled = fft2(wide).numpy()
    header = mrd_header(64, 64, oversampling=2, field_of_view=(200.0, 200.0, 5.0))
    with open_scan(opened(lines_of(oversampled), header)) as scan:
        prepared = prepare(scan)
        assert prepared.found["readout oversampling"] == "128 rows to 64"
        assert prepared.voxel_size == pytest.approx((3.125, 3.125, 5.0))
        found = prepared.slice(1).problem
        # Given maps are of the pixels of k-space as it is stored: the middle of them is left.
        maps = np.linspace(1, 3, 128)[:, None] * np.exp(1j * np.arange(4))[:, None, None] * np.ones((4, 128, 64))
        maps = (maps / 2).astype(np.complex64)
        A = prepare(scan, Choices(sensitivity_map=maps, noise_std=1.0)).slice(1).problem.A
        profile = A.power[0, :, 0].sqrt()
        np.testing.assert_allclose(profile / profile[0], maps[0, 32:96, 0].real / maps[0, 32, 0].real, rtol=1e-4)
    with open_scan(opened(lines_of(kspace))) as scan:
        expected = prepare(scan).slice(1).problem
    # Orthonormal transforms of single precision.
    assert (found.masked_kspace - expected.masked_kspace).abs().max() < 1e-4 * expected.masked_kspace.abs().max()


def test_zeros_around_k_space_are_removed_and_voxels_grow(opened, kspace):
    inner = kspace.copy()
    inner[..., :12, :] = inner[..., 53:, :] = inner[..., :8] = inner[..., 56:] = 0
    header = mrd_header(64, 64, field_of_view=(128.0, 64.0, 4.0))
    with open_scan(opened(lines_of(inner), header)) as scan:
        prepared = prepare(scan)
        assert prepared.size == (42, 48)
        assert prepared.found["zeros around k-space"] == "64×64 to 42×48"
        assert prepared.voxel_size == pytest.approx((128 / 42, 64 / 48, 4.0))
        assert prepared.slice(0).problem.masked_kspace.shape == (1, 4, 42, 48)


def test_calibration_lines_are_data_unless_their_scan_is_another(opened, kspace):
    mask = np.zeros(64, dtype=bool)
    mask[::2] = True
    centre = [c for c in range(24, 40) if not mask[c]]
    imaging = lines_of(kspace[:1], np.flatnonzero(mask).tolist())
    embedded = lines_of(kspace[:1], centre, flags=("IS_PARALLEL_CALIBRATION",))
    with open_scan(opened(imaging + embedded, mrd_header(64, 64, calibration="embedded"))) as scan:
        assert scan.mask[0].sum() == 64 * (32 + 8)
        assert scan.calibration is None
    # Of another contrast: in maps alone, which do not depend on the unit.
    separate = lines_of(5 * kspace[:1], list(range(24, 40)), flags=("IS_PARALLEL_CALIBRATION",))
    with open_scan(opened(imaging + separate, mrd_header(64, 64, calibration="separate"))) as scan:
        assert scan.mask[0].sum() == 64 * 32
        problem = prepare(scan).slice(0).problem
    with open_scan(opened(imaging + embedded, mrd_header(64, 64))) as scan:
        expected = prepare(scan).slice(0).problem
    assert float(problem.A.sampling_mask.double().mean()) == 0.5
    inside = expected.A.power[0] > 0
    difference = (problem.A.sensitivity_map - expected.A.sensitivity_map).abs()[0][:, inside]
    # The centre of the one has lines that the other has with the rest: the same, and the same number.
    assert float(difference.median()) < 0.05


# ---- Geometry


@pytest.mark.parametrize("oversampling", [1, 2])
def test_a_point_is_where_the_scanner_had_it(opened, tmp_path, oversampling):
    """K-space of points, by the integral of their signal, against nibabel's coordinates of the brightest pixels."""
    read, phase = np.array([0.6, 0.8, 0.0]), np.array([0.0, 0.0, 1.0])
    across = np.cross(read, phase)
    centre, lengths, rows, columns = np.array([10.0, -20.0, 30.0]), (96.0, 64.0), 48 * oversampling, 32
    # Left, posterior, superior: on pixels, one in every slice, 6 mm apart.
    offsets = [(3, -5), (-4, 2)]
    points = [centre + 6 * n * across + 2 * a * read + 2 * b * phase for n, (a, b) in enumerate(offsets)]
    found = []
    for number, point in enumerate(points):
        position = centre + 6 * number * across
        along, over = (point - position) @ read, (point - position) @ phase
        k_read = (np.arange(rows) - rows // 2) / (lengths[0] * oversampling)
        k_phase = (np.arange(columns) - columns // 2) / lengths[1]
        # A point, and a broad object below it, without which there is neither map nor centre.
        broad = 60 * np.exp(-((k_read[:, None] * 150) ** 2) - (k_phase * 150) ** 2)
        signal = np.exp(-2j * np.pi * (k_read[:, None] * along + k_phase * over)) + broad
        coils = np.stack([signal, 0.5 * signal])
        found += [
            acquisition(
                coils[:, :, c], kspace_encode_step_1=c, slice=number, position=tuple(position),
                read_dir=tuple(read), phase_dir=tuple(phase), slice_dir=tuple(across),
            )
            for c in range(columns)
        ]  # fmt: skip
    header = mrd_header(48, columns, oversampling=oversampling, field_of_view=(*lengths, 6.0))
    with open_scan(opened(found, header)) as scan:
        run = Run(prepare(scan), pretrained_prior(), Method(num_samples=0), tmp_path)
        path = run.reconstruct()
    (written,) = write_nifti(read_posterior(path), tmp_path / "a.nii.gz")
    image = nibabel.load(written)
    magnitude = np.asarray(image.dataobj)
    assert magnitude.shape == (32, 48, 2)
    for number, point in enumerate(points):
        brightest = np.unravel_index(magnitude[..., number].argmax(), magnitude.shape[:2])
        place = nibabel.affines.apply_affine(image.affine, (*brightest, number))
        np.testing.assert_allclose(place * [-1, -1, 1], point, atol=0.01)
    assert nibabel.affines.voxel_sizes(image.affine) == pytest.approx((2, 2, 6))
    # DICOM has the coordinates of the scanner.
    for point, written in zip(points, write_dicom(read_posterior(path), tmp_path / "series"), strict=True):
        dataset = pydicom.dcmread(written)
        row, column = np.unravel_index(dataset.pixel_array.argmax(), dataset.pixel_array.shape)
        along, down = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
        height, width = dataset.PixelSpacing
        place = np.array(dataset.ImagePositionPatient, dtype=float) + column * width * along + row * height * down
        np.testing.assert_allclose(place, point, atol=0.01)


def test_slices_of_several_series_have_no_common_place(opened, kspace):
    """They alternate with the series, so that no step leads from each to the next."""
    found = []
    for number in range(2):
        for contrast in range(2):
            lines = lines_of(
                kspace[number : number + 1], contrast=contrast, position=(0.0, 0.0, 6.0 * number),
                read_dir=(0.0, 1.0, 0.0), phase_dir=(1.0, 0.0, 0.0), slice_dir=(0.0, 0.0, 1.0),
            )  # fmt: skip
            for line in lines:
                line.idx.slice = number
            found += lines
    with open_scan(opened(found, mrd_header(64, 64, field_of_view=(128.0, 128.0, 5.0)))) as scan:
        prepared = prepare(scan)
        assert scan.places == ((0, 0), (0, 1), (1, 0), (1, 1))
        assert affine_of(prepared, [0, 1, 2, 3]) is None
        affine = affine_of(prepared, [1, 3])
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 6])


# ---- What is refused


def test_raw_data_that_cannot_be_are_one_line(opened, kspace, one_line_error):
    def refused(acquisitions, *words, header=HEADER, axes=None):
        path = opened(acquisitions, header)
        with one_line_error("a.h5", *words), open_scan(path, axes) as scan:
            prepare(scan)

    lines = lines_of(kspace[:1])
    noise = acquisition(noise_like((4, 1000)), ("IS_NOISE_MEASUREMENT",))
    refused([noise], "1 of them noise", "no line of an image")
    refused(lines, "trajectory", "spiral", header=mrd_header(64, 64, trajectory="spiral"))
    refused(lines, "3D", "allowed: 2D", header=mrd_header(64, 64, depth=8))
    refused([*lines, acquisition(kspace[0, :, :, 3], kspace_encode_step_2=1)], "3D", "2 steps")
    refused([*lines, acquisition(kspace[0, :3, :, 3])], "[3, 4]", "one number")
    refused(lines, "columns", "0 to 63", header=mrd_header(64, 32))
    refused(lines, "samples", "32 rows", header=mrd_header(32, 64))
    refused([*lines, acquisition(kspace[0, :, :, 3], ("IS_REVERSE",))], "backwards", "1 lines")
    refused(lines, "--axes", axes=["row"])


def test_a_file_without_acquisitions_is_one_line(tmp_path, one_line_error):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dataset/xml"] = [HEADER]
        file.create_dataset("dataset/data", (0,), dtype=ismrmrd.hdf5.acquisition_dtype)
    with one_line_error("a.h5", "no acquisition"), open_scan(tmp_path / "a.h5"):
        pass
