"""The look at a volume before anything runs: what is usual passes, what is certain is repaired, the rest refused."""

import logging

import h5py
import numpy as np
import pytest
import torch
from direct.data.datasets import FastMRIDataset

from direct_deepen.data.fastmri_file import ismrmrd_header
from direct_deepen.data.inspection import Layout, inspect_volume
from direct_deepen.data.phantom import brain_volume
from direct_deepen.data.volumes import looked_at
from direct_deepen.physics.scale import full_sampling_scale

SIZE = 64


@pytest.fixture(scope="module")
def kspace():
    """Three slices of eight coils."""
    return brain_volume(np.random.default_rng([3, 0]), num_slices=3, size=SIZE, num_coils=8).kspace


@pytest.fixture
def look(tmp_path, caplog):
    """``look(kspace, header=…, mask=…)``: the layout of a volume; a header of the shape unless one is given.

    What it says in the log are ``look.lines``.
    """

    def inspect(kspace, header="", mask=None, **options):
        path = tmp_path / f"a{len(list(tmp_path.iterdir()))}.h5"
        with h5py.File(path, "w") as file:
            file["kspace"] = kspace
            if header is not None:
                file["ismrmrd_header"] = (header or ismrmrd_header(len(kspace), *kspace.shape[-2:])).encode()
            if mask is not None:
                file["mask"] = mask
        caplog.clear()
        with caplog.at_level(logging.INFO):
            found = inspect_volume(path, **options)
            inspect.lines = [record.getMessage() for record in caplog.records]
            caplog.clear()
            assert inspect_volume(path, **options) == found
            assert not caplog.records, "a file is looked at once"
        assert all(path.name in line and "\n" not in line for line in inspect.lines)
        return found

    return inspect


HEADER = ismrmrd_header(3, SIZE, SIZE)
"""Of the volume as it should be."""


def lines(accelerated=4, centre=slice(27, 37)):
    mask = np.zeros(SIZE, dtype=bool)
    mask[::accelerated] = mask[centre] = True
    return mask


def plane(share=0.25):
    mask = np.random.default_rng(0).random((SIZE, SIZE)) < share
    mask[28:36, 28:36] = True
    return mask


MEASURED = {"use_mask": True, "undersampled": True}


# ---- What is usual


def test_files_with_and_without_a_maximum_make_a_batch(tmp_path, kspace):
    for name, attributes in {"a": {"patient_id": "1"}, "b": {"max": 3.0}}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["kspace"] = kspace
            file.attrs.update(attributes)
    slices = looked_at(FastMRIDataset(tmp_path, pass_max=True))
    first, second = (set(slices[index]) for index in (0, 3))
    # Which every sample has after DIRECT's transforms.
    assert first ^ second == {"scaling_factor"}


def test_a_usual_volume_has_no_finding_and_stays_as_it_is(look, kspace):
    for header in ("", None):
        np.testing.assert_array_equal(look(kspace, header).repaired(kspace), kspace)
        assert look.lines == []
    np.testing.assert_array_equal(look(kspace[:, 0]).repaired(kspace[:, 0]), kspace[:, 0])
    look(np.roll(kspace, 2, axis=-1))
    assert look.lines == []


@pytest.mark.parametrize("change", ["first coil", "rows", "padding", "ellipse", "echo"])
def test_what_is_unusual_and_harmless_is_no_finding(look, kspace, change):
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    kspace = kspace.copy()
    if change == "first coil":
        kspace[:, 0] = 0
    elif change == "rows":
        kspace[:, :, :16] = 0
    elif change == "padding":
        kspace[..., :5] = kspace[..., -5:] = 0
    elif change == "ellipse":
        kspace *= np.hypot(x, y) < 1
    else:
        kspace[..., 40:] = 0
    look(kspace)
    assert look.lines == []


@pytest.mark.parametrize("mask", [lines(), plane(), np.stack([lines()] * 3), lines().astype(np.float32)])
@pytest.mark.parametrize("outside", [0, 1e-12])
def test_a_measured_mask_is_seen(look, kspace, one_line_error, mask, outside):
    inside = mask[0] if len(mask) == 3 else mask
    measured = np.where(inside != 0, kspace, outside * np.abs(kspace).max())
    layout = look(measured, mask=mask, **MEASURED)
    assert look.lines == []
    for number in range(3):
        expected = np.broadcast_to(inside != 0, (SIZE, SIZE))
        np.testing.assert_array_equal(layout.mask(mask, number, (SIZE, SIZE)), expected)
    with one_line_error("undersampled already", "`mask`", "allowed", "pass_mask: true"):
        look(measured, mask=mask)


def test_full_data_with_a_mask_are_not_undersampled(look, kspace):
    look(kspace, mask=lines())
    look(kspace, mask=lines(), use_mask=True)
    assert look.lines == []


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (lines(), lines()[None]),
        (lines()[:, None], lines()[:, None]),
        (lines()[None, None], lines()[None]),
        (plane(), plane()),
        (plane()[None, ..., None], plane()),
        (np.stack([lines(2), lines(), lines(5)]), lines()[None]),
        (np.stack([plane(0.6), plane(), plane(0.1)])[:, None], plane()),
    ],
)
def test_masks_of_many_shapes_are_understood(stored, expected):
    found = Layout(3).mask(stored, 1, (SIZE, SIZE))
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (SIZE, SIZE)))
    swapped = Layout(3, swapped=True).mask(stored, 1, (SIZE, SIZE))
    np.testing.assert_array_equal(swapped, np.broadcast_to(expected, (SIZE, SIZE)).T)


# ---- What is repaired


@pytest.mark.parametrize("axes", [(-2, -1), (-2,), (-1,)])
def test_a_centre_at_the_edge_is_moved_to_the_middle(look, kspace, axes):
    shifted = np.fft.ifftshift(kspace, axes=axes)
    np.testing.assert_array_equal(look(shifted).repaired(shifted), kspace)
    (line,) = look.lines
    assert "moved to the middle" in line


@pytest.mark.parametrize("names", [("real", "imag"), ("re", "im"), ("r", "i"), ("Real", "Imaginary")])
def test_pairs_of_numbers_are_read_as_complex(look, kspace, names):
    stored = kspace.view([(name, "<f4") for name in names])
    found = look(stored).repaired(stored)
    np.testing.assert_array_equal(found, kspace)
    (line,) = look.lines if names != ("r", "i") else ["read as complex"]  # h5py reads those as complex by itself
    assert "read as complex" in line


@pytest.mark.parametrize("number", [np.float16, np.float32, np.int16])
def test_a_last_axis_of_real_and_imaginary_parts_is_read_as_complex(look, kspace, number):
    scaled = kspace * np.float32(3e4 / np.abs(kspace).max())
    stored = np.stack([scaled.real, scaled.imag], axis=-1).astype(number)
    repaired = look(stored, HEADER).repaired(stored)
    assert len(look.lines) == 1
    assert repaired.dtype == np.complex64
    # Half precision has eleven bits, integers a half.
    np.testing.assert_allclose(repaired, scaled, rtol=1e-3, atol=2)


def test_exchanged_rows_and_columns_are_exchanged_back_where_the_header_tells(look, kspace):
    images = np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1)))
    padded = np.pad(images, [(0, 0), (0, 0), (32, 32), (0, 0)])
    long = np.fft.fftshift(np.fft.fft2(padded), axes=(-2, -1)).astype(np.complex64)
    stored = np.swapaxes(long, -2, -1)
    layout = look(stored, ismrmrd_header(3, 2 * SIZE, SIZE))
    assert "exchanged back" in " ".join(look.lines)
    np.testing.assert_array_equal(layout.repaired(stored), long)
    assert (layout.columns, layout.reconstruction) == ((0, SIZE), (2 * SIZE, SIZE, 1))


def test_repairs_go_together_and_serve_for_any_slices(look, kspace):
    shifted = np.fft.ifftshift(kspace[..., 8:56], axes=(-2, -1)).swapaxes(-2, -1)
    stored = np.stack([shifted.real, shifted.imag], axis=-1)
    layout = look(stored, ismrmrd_header(3, SIZE, 48))
    assert len(look.lines) == 3
    np.testing.assert_array_equal(layout.repaired(stored[1:2]), kspace[1:2, ..., 8:56])


@pytest.mark.parametrize("outside", [0, 1e-12])
@pytest.mark.parametrize("mask", [lines(), plane(), plane(0.6), lines()[:, None]])
def test_zeros_are_the_mask_of_data_that_hold_none(look, kspace, mask, outside):
    layout = look(np.where(mask, kspace, outside * np.abs(kspace).max()), **MEASURED)
    assert layout.zeros_are_mask
    (line,) = look.lines
    assert "taken from the zeros" in line


HEADERS = {
    "without limits": (HEADER[: HEADER.index("<encodingLimits>")] + HEADER[HEADER.index("<trajectory>") :]),
    "without namespace": HEADER.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', ""),
    "with a prefix": HEADER.replace("<", "<i:")
    .replace("<i:/", "</i:")
    .replace("<i:?", "<?")
    .replace("xmlns", "xmlns:i"),
    "of raw data": "<ismrmrdHeader/>",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_what_a_header_does_not_say_is_as_without_one(look, kspace, header):
    assert look(kspace, header) == look(kspace, None)
    assert look.lines == []


@pytest.mark.parametrize(
    ("size", "expected"), [((128, 32), (64, 32, 1)), ((32, 128), (64, 64, 1)), ((512, 512), (64, 64, 1))]
)
def test_images_larger_than_kspace_are_not_enlarged(look, kspace, size, expected):
    start, end = HEADER.split("<reconSpace>")
    header = start + "<reconSpace>" + end.replace(f"<x>{SIZE}</x><y>{SIZE}</y>", "<x>{}</x><y>{}</y>".format(*size))
    assert look(kspace, header).reconstruction == expected
    # No larger than the data on either axis, and not square as DIRECT's crop is.
    assert look(kspace, header).field_of_view == (min(size[0], SIZE), min(size[1], SIZE))
    (line,) = look.lines
    assert "not enlarged" in line


@pytest.mark.parametrize(
    ("encoded", "images", "fields", "pixels", "voxels"),
    [
        # Readout oversampled by two; then images interpolated to twice the pixels; then both.
        ((128, 64), (64, 64), ((400, 200), (200, 200)), (64, 64), (3.125, 3.125, 5)),
        ((128, 64), (128, 128), ((400, 200), (200, 200)), (64, 64), (3.125, 3.125, 5)),
        # As fastMRI: pixels that are equal but for rounding, and fewer columns than the images have.
        ((128, 56), (64, 64), ((400, 176), (200, 200)), (64, 56), (3.125, 3.125, 5)),
        # k-space of the size of the images, and no field of view of its own: enlarged, or seen in part?
        ((64, 64), (64, 64), (None, (200, 200)), (64, 64), (3.125, 3.125, 5)),
        ((64, 64), (128, 128), (None, (200, 200)), (64, 64), None),
    ],
)
def test_the_field_of_view_is_in_pixels_of_kspace_whatever_the_images_were_interpolated_to(
    look, encoded, images, fields, pixels, voxels
):
    def space(name, size, field):
        view = "" if field is None else "<fieldOfView_mm><x>{}</x><y>{}</y><z>5</z></fieldOfView_mm>".format(*field)
        return "<{0}><matrixSize><x>{1}</x><y>{2}</y><z>1</z></matrixSize>{3}</{0}>".format(name, *size, view)

    spaces = space("encodedSpace", encoded, fields[0]) + space("reconSpace", images, fields[1])
    header = f"<ismrmrdHeader><encoding>{spaces}</encoding></ismrmrdHeader>"
    rows, columns = ((np.arange(size) - size // 2) / size for size in encoded)
    peak = 1 / (1 + (rows[:, None] ** 2 + columns**2) / 0.02**2)
    found = look(np.broadcast_to(peak.astype(complex), (2, 1, *encoded)), header)
    assert found.field_of_view == pixels
    assert (None if found.geometry is None else found.geometry[1]) == (
        None if voxels is None else pytest.approx(voxels)
    )


FASTMRI = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{0}</x><y>{1}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{2}</x><y>{3}</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{4}</x><y>{5}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{6}</x><y>{7}</y><z>5</z></fieldOfView_mm></reconSpace>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""
"""As fastMRI's: matrix x and y and field of view x and y, of k-space and of images."""

MATRICES = {
    # Header, size of k-space, and field of view of the images in its pixels: millimetres over those of a pixel.
    "as fastMRI, readout oversampled": ((128, 66, 440, 226.875, 64, 64, 220, 220), (128, 66), (64, 64)),
    "images enlarged too": ((128, 64, 440, 220, 104, 104, 220, 220), (128, 64), (64, 64)),
    "enlarged past all rows": ((128, 64, 440, 220, 256, 256, 220, 220), (128, 64), (64, 64)),
    "enlarged, fewer columns": ((128, 56, 440, 192.5, 104, 91, 220, 192.5), (128, 56), (64, 56)),
    "enlarged, phase oversampled": ((128, 96, 440, 330, 104, 104, 220, 220), (128, 96), (64, 64)),
    "enlarged, not oversampled": ((64, 64, 220, 220, 128, 128, 220, 220), (64, 64), (64, 64)),
    "fewer pixels": ((64, 64, 220, 220, 32, 32, 220, 220), (64, 64), (64, 64)),
    "phase resolution of 75 %": ((128, 48, 440, 220, 64, 64, 220, 220), (128, 48), (64, 48)),
    "half the resolution, twice the phase field": ((128, 64, 440, 440, 64, 64, 220, 220), (128, 64), (64, 32)),
    "zeros around k-space": ((128, 48, 440, 220, 104, 104, 220, 220), (128, 64), (64, 64)),
    "oversampling cropped, not in the header": ((128, 64, 440, 220, 104, 104, 220, 220), (64, 64), (64, 64)),
    "images wider than k-space": ((64, 64, 220, 220, 64, 64, 250, 230), (64, 64), (64, 64)),
    "metres": ((128, 64, 0.44, 0.22, 104, 104, 0.22, 0.22), (128, 64), (64, 64)),
    "no lengths": ((128, 64, 0, 0, 64, 64, 0, 0), (128, 64), (64, 64)),
    "a length that is none": ((128, 64, 440, "", 64, 64, 220, "nan"), (128, 64), (64, 64)),
}


@pytest.fixture(scope="module")
def images(kspace):
    return centred(np.fft.ifft2, kspace)


def centred(transform, array):
    """A transform of the last two axes, orthonormal, about the middle."""
    axes = (-2, -1)
    return np.fft.fftshift(transform(np.fft.ifftshift(array, axes=axes), axes=axes, norm="ortho"), axes=axes)


def scanned(images, rows, columns, field_of_view):
    """The k-space of so many samples, of images in the middle of a field of view of so many pixels."""
    margins = [((size - SIZE) // 2,) * 2 for size in field_of_view]
    spectrum = centred(np.fft.fft2, np.pad(images, [(0, 0), (0, 0), *margins]))
    cut = [slice((n - k) // 2, (n + k) // 2) for n, k in zip(field_of_view, (rows, columns), strict=True)]
    return spectrum[:, :, cut[0], cut[1]]


@pytest.mark.parametrize(("header", "size", "expected"), MATRICES.values(), ids=MATRICES.keys())
def test_the_field_of_view_is_in_millimetres_whatever_the_matrix_of_images(look, images, header, size, expected):
    # What is cut here is sampled more coarsely; zeros around k-space are no other size of the field.
    space = [max(n, SIZE) for n in size]
    found = look(scanned(images, *size, space), FASTMRI.format(*header))
    assert found.field_of_view == expected
    assert found.reconstruction[0] <= size[0]
    assert found.reconstruction[1] <= size[1]


def test_images_of_more_pixels_leave_the_scale_of_an_oversampled_scan_alone(look, images):
    sizes = (2 * SIZE, SIZE)
    scan = scanned(images, *sizes, sizes)
    layout = look(scan, FASTMRI.format(*sizes, 440, 220, 104, 104, 220, 220))
    expected, found, by_matrix = (
        full_sampling_scale(torch.from_numpy(data), field_of_view=field).numpy()
        for data, field in (
            (centred(np.fft.fft2, images), None), (scan, layout.field_of_view), (scan, (104, SIZE))
        )
    )  # fmt: skip
    # The disc of so few samples has a rough edge: 0.3 %. By the matrix of the images it is √(104/64) too small.
    np.testing.assert_allclose(found, expected, rtol=0.01)
    np.testing.assert_allclose(found / by_matrix, (104 / 64) ** 0.5, rtol=1e-6)


def test_data_without_noise_need_another_bound_of_padding(look):
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    blob = np.exp(-40 * (x**2 + y**2))[None, None].astype(np.complex64)
    assert look(blob).faint
    assert "padding_eps" in look.lines[0]


# ---- What is noted


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_slice_that_is_not_finite_is_not_empty(look, kspace, value):
    broken = kspace.copy()
    broken[1], broken[2] = value, 0
    assert look(broken).empty_slices == (2,)
    broken[1] = 0
    broken[1, 0, 5, 5] = value
    assert look(broken).empty_slices == (2,)
    # All of a column, which is no column that was left out.
    broken[1] = kspace[1]
    broken[1, :, :, SIZE // 2] = value
    assert look(broken).empty_slices == (2,)
    assert look(np.full_like(kspace, value)).empty_slices == ()


def test_empty_slices_are_numbered(look, kspace):
    assert look(kspace * np.array([1, 0, 1e-14])[:, None, None, None]).empty_slices == (1, 2)
    assert look.lines == []  # they are counted over all volumes, where it is known what becomes of them


def test_without_a_header_axes_that_look_wrong_are_noted(look, kspace):
    window = np.outer(np.hanning(41)[:-1], np.hanning(41)[:-1]) ** 40
    look((np.ones((2, 200, 1, 1)) * window).astype(np.complex64), None)
    assert "unusual shape (2, 200, 40, 40)" in look.lines[0]
    look(kspace[..., 20:44], None)
    assert "unusual shape" in look.lines[0]


# ---- What is refused


@pytest.mark.parametrize("axes", [(3, 2, 1, 0), (2, 3, 1, 0), (0, 2, 3, 1), (0, 3, 2, 1)])
def test_another_order_of_axes_is_refused_where_the_header_tells(look, kspace, one_line_error, axes):
    with one_line_error("axes", "allowed", "(slice, coil, row, column)"):
        look(kspace.transpose(axes), HEADER)


def counted(channels, slices):
    """A header that says how many coils and slices there are, each unless it is None."""
    system = f"<receiverChannels>{channels}</receiverChannels>"
    limits = f"<slice><minimum>0</minimum><maximum>{(slices or 1) - 1}</maximum><center>0</center></slice>"
    return (
        "<ismrmrdHeader>"
        f"<acquisitionSystemInformation>{system if channels else ''}</acquisitionSystemInformation>"
        f"<encoding><encodingLimits>{limits if slices else ''}</encodingLimits></encoding></ismrmrdHeader>"
    )


@pytest.mark.parametrize(("channels", "slices"), [(8, 3), (8, None), (None, 3), (8, 1), (12, 3)])
def test_coils_before_slices_are_refused_where_the_header_tells(look, kspace, one_line_error, channels, slices):
    look(kspace, counted(channels, slices))
    assert look.lines == []
    with one_line_error("a1.h5", "(8, 3, 64, 64)", "axis 0 seems to be the coils", "allowed: (slice, coil"):
        look(kspace.swapaxes(0, 1), counted(channels, slices))


@pytest.mark.parametrize("slices", [None, 1, 3])
def test_coils_without_an_axis_of_slices_are_refused_where_the_header_tells(look, kspace, one_line_error, slices):
    for coils in (kspace[1], kspace[1][:, None]):
        with one_line_error(f"{coils.shape}", "8 coils", "axis 0 seems to be the coils"):
            look(coils, counted(8, slices))
    look(kspace[:, 0], counted(8, 3))
    look(kspace[:1], counted(8, 1))
    assert look.lines == []


def test_compressed_coils_and_slices_left_out_are_no_exchange(look, kspace, slices):
    look(kspace[:, :2], counted(8, 3))
    look(kspace[:2], counted(8, 3))
    look(kspace[1:2], counted(8, 3))
    # As many coils as there are slices, before they were compressed: the images tell.
    look(slices[:, :4], counted(6, None))
    assert look.lines == []


@pytest.fixture(scope="module")
def slices():
    """Six slices of five coils: whose images tell one from the other."""
    return brain_volume(np.random.default_rng([3, 1]), num_slices=6, size=SIZE, num_coils=5).kspace


def test_coils_before_slices_are_noted_without_a_header(look, slices):
    for header in (None, "<ismrmrdHeader/>"):
        look(slices, header)
        look(slices[:, 0], header)
        look(slices[:, :1], header)
        assert look.lines == []
        for exchanged in (slices.swapaxes(0, 1), slices[:5].swapaxes(0, 1), slices[2], slices[2][:, None]):
            look(exchanged, header)
            (line,) = look.lines
            assert f"kspace has shape {exchanged.shape}, but its slices are as alike as the coils of one" in line
            assert "expected: (slice, coil, row, column)" in line


@pytest.mark.parametrize("axes", [(3, 2, 1, 0), (0, 2, 3, 1)])
def test_another_order_of_axes_is_refused_without_a_header_too(look, kspace, one_line_error, axes):
    with one_line_error("kspace has shape", "allowed: ", "(slice, coil, row, column)"):
        look(kspace.transpose(axes), None)


@pytest.mark.parametrize(
    "move",
    [
        lambda kspace: np.roll(kspace, 8, axis=-1),
        lambda kspace: np.roll(kspace, 16, axis=-1),
        lambda kspace: np.roll(kspace, -9, axis=-2),
        lambda kspace: kspace[:, :, 16:],
        lambda kspace: np.fft.ifft2(kspace),
        lambda kspace: np.roll(np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=-1)), axes=-1), 12, axis=-1),
    ],
    ids=["8 columns", "16 columns", "9 rows", "partial echo", "images", "one axis transformed"],
)
def test_a_centre_that_is_not_in_the_middle_is_refused(look, kspace, one_line_error, move):
    with one_line_error("centre", "is at (", "allowed"):
        look(move(kspace))


@pytest.mark.parametrize("mask", [lines(), lines(2), plane(), plane(0.6), lines()[:, None]])
def test_missing_samples_without_a_mask_are_refused(look, kspace, one_line_error, mask):
    for outside in (0, 1e-12):
        with one_line_error("undersampled already", "holds no `mask`", "allowed", "pass_mask: true"):
            look(np.where(mask, kspace, outside * np.abs(kspace).max()))
    with one_line_error("undersampled already", "not where its `mask` says"):
        look(kspace * mask, mask=np.ones(SIZE), **MEASURED)


def filled(kspace, mask, noise, reference=np.max):
    """k-space with noise of this standard deviation where it was not measured."""
    draw = np.random.default_rng(7).standard_normal((2, *kspace.shape)) / 2**0.5
    outside = noise * reference(np.abs(kspace)) * (draw[0] + 1j * draw[1])
    return np.where(mask, kspace, outside).astype(np.complex64)


MOSTLY = lines(2, slice(8, 56))
"""Every second line, and three quarters of all in the middle."""


@pytest.mark.parametrize("coils", [1, 8])
@pytest.mark.parametrize("mask", [lines(), lines(2), MOSTLY, plane(), plane(0.6), lines()[:, None]])
@pytest.mark.parametrize(
    ("noise", "reference"), [(0, np.max), (1e-7, np.mean), (1e-6, np.max), (1e-4, np.mean), (1e-4, np.max)]
)
def test_a_little_noise_where_nothing_was_measured_is_no_measurement(
    look, kspace, one_line_error, mask, coils, noise, reference
):
    part = filled(kspace[:2, :coils], mask, noise, reference)
    with one_line_error("undersampled already", "holds no `mask`", "allowed"):
        look(part)
    plane_of_mask = np.broadcast_to(mask, (SIZE, SIZE))
    with one_line_error("undersampled already", "outside its `mask`", "allowed"):
        look(part, mask=plane_of_mask)
    look(part, mask=plane_of_mask, **MEASURED)
    assert look.lines == []


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_a_line_with_few_samples_of_a_mask_is_not_missing(look, kspace, share):
    mask = plane(share)
    mask[[20, 21, 22, 45, 46]] = False
    mask[[20, 45], 10] = True
    look(kspace * mask, mask=mask, **MEASURED)
    assert look.lines == []


@pytest.mark.parametrize("mask", [lines(), MOSTLY, plane(), lines()[:, None]])
@pytest.mark.parametrize("noise", [0, 1e-5])
def test_one_coil_that_was_not_masked_does_not_hide_the_others(look, kspace, one_line_error, mask, noise):
    part = filled(kspace[:1], mask, noise)
    part[:, 2] = kspace[:1, 2]
    with one_line_error("undersampled already", "holds no `mask`"):
        look(part)
    with one_line_error("holds no `mask`"):
        look(part, **MEASURED)
    with one_line_error("undersampled already", "outside its `mask`"):
        look(part, mask=np.broadcast_to(mask, (SIZE, SIZE)))


def test_noise_is_not_taken_for_a_mask(look, kspace, one_line_error):
    with one_line_error("holds no `mask`", "allowed"):
        look(filled(kspace[:1], lines(), 1e-5), **MEASURED)
    assert look(filled(kspace[:1], MOSTLY, 0), **MEASURED).zeros_are_mask


def bottle(rows=128, columns=128):
    y, x = np.meshgrid(*[(np.arange(n) - n // 2) / n for n in (rows, columns)], indexing="ij")
    return centred(np.fft.fft2, (np.hypot(x, y) < 0.3).astype(complex))[None, None]


@pytest.mark.parametrize("coils", [1, 8])
@pytest.mark.parametrize("name", ["brain", "oversampled", "bottle"])
def test_full_data_of_little_noise_are_full(look, kspace, images, name, coils):
    """Also with a part that is zero, or noise, at the edges, and with twelve bits a number."""
    full = {
        "brain": kspace[:1, :coils],
        "oversampled": scanned(images[:1, :coils], 128, 64, (128, 64)),
        "bottle": bottle() * np.ones((coils, 1, 1)),
    }[name]
    rows, columns = full.shape[-2:]
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (rows, columns)], indexing="ij")
    for kept in (x > -2, x < 0.4, x > -0.4, y < 0.4, np.hypot(x, y) < 1):
        look(filled(full, kept, 0), None)
        assert look.lines == []
        look(filled(full, kept, 1e-6), None)
    step = np.abs(full).max() / 2048
    look(filled(full, np.True_, 0), mask=lines() if columns == SIZE else lines().repeat(2))
    assert look.lines == []
    if name != "bottle":
        look(np.round(full / step).astype(np.complex64), None)


def test_zeros_of_rounded_numbers_are_no_mask(look, kspace, one_line_error):
    scaled = kspace * lines() * np.float32(3e4 / np.abs(kspace).max())
    with one_line_error("holds no `mask`", "allowed"):
        look(np.stack([scaled.real, scaled.imag], axis=-1).astype(np.int16), HEADER, **MEASURED)
    with one_line_error("holds no `mask`", "allowed", "(64,)", "(64, 64)"):
        look(kspace, **MEASURED)


NO_CENTRE = [
    lines(4, slice(0)),
    np.isin(np.arange(SIZE) % 3, 1) & ~np.isin(np.arange(SIZE), [31, 32, 33]),
    np.isin(np.arange(SIZE), np.random.default_rng(1).permutation(np.delete(np.arange(SIZE), 32))[:22]),
]


@pytest.mark.parametrize("mask", NO_CENTRE)
def test_a_mask_without_a_calibration_region_is_refused(look, kspace, one_line_error, mask):
    words = ("fully sampled centre", "allowed: >= 4", "coil maps", "espirit", "SenseOperator")
    with one_line_error(*words):
        look(kspace * mask, mask=mask, **MEASURED)
    with one_line_error(*words):
        look(kspace * mask, **MEASURED)
    with one_line_error(*words):
        look(kspace, mask=np.stack([lines(), lines(), mask]), use_mask=True)


@pytest.mark.parametrize("mask", [np.ones(SIZE - 1), np.ones((2, SIZE)), np.ones((2, 3, SIZE, SIZE)), np.float32(1)])
def test_a_mask_that_does_not_fit_is_refused_if_it_is_needed(look, kspace, one_line_error, mask):
    look(kspace, mask=mask)
    with one_line_error(f"mask has shape {mask.shape}", "(64,)", "(64, 64)"):
        look(kspace, mask=mask, use_mask=True)


@pytest.mark.parametrize(
    ("found", "instead", "word"),
    [
        ("cartesian", "radial", "radial"),
        ("cartesian", " Spiral", "spiral"),
        ("cartesian", "goldenangle", "goldenangle"),
        (f"<maximum>{SIZE - 1}</maximum>", "<maximum>40</maximum>", "padding"),
        (f"<x>{SIZE}</x>", "<x></x>", "matrixSize/x"),
        ("</ismrmrdHeader>", "", "ismrmrd_header"),
    ],
)
def test_a_header_that_contradicts_the_data_or_cannot_be_read_is_refused(
    look, kspace, one_line_error, found, instead, word
):
    with one_line_error(word, "allowed"):
        look(kspace, HEADER.replace(found, instead))


OTHER = [
    np.real,
    lambda kspace: kspace[None],
    lambda kspace: kspace[0, 0],
    lambda kspace: kspace[0, 0, ..., None, None],
]


@pytest.mark.parametrize("change", OTHER)
def test_kspace_that_is_real_or_of_other_dimensions_is_refused(look, kspace, one_line_error, change):
    with one_line_error("kspace", "allowed"):
        look(change(kspace), None)


def test_raw_data_of_ismrmrd_and_broken_files_are_named(tmp_path, one_line_error):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["dataset/data"] = file["dataset/xml"] = np.zeros(3)
    with one_line_error("scan.h5", "ISMRMRD raw data"):
        inspect_volume(tmp_path / "scan.h5")
    (tmp_path / "broken.h5").write_bytes((tmp_path / "scan.h5").read_bytes()[:700])
    with one_line_error("broken.h5", "no fastMRI volume"):
        inspect_volume(tmp_path / "broken.h5")


def test_a_slice_that_is_undersampled_beside_others_that_are_not_is_refused(look, kspace, one_line_error):
    part = kspace.copy()
    weak = int((np.abs(kspace) ** 2).sum(axis=(1, 2, 3)).argmin())
    part[weak] *= lines()
    with one_line_error(f"slice {weak} is undersampled already", "fully sampled"):
        look(part)
    # One coil that lacks samples is a broken one, and data that are undersampled may be so in any slice.
    part = kspace.copy()
    part[weak, 0] *= lines()
    assert look(part).empty_slices == ()


def test_few_rows_are_unusual_too(look):
    # (column, slice, coil, row) without a header, whose coils seem to be rows: only the shape tells.
    rows, columns = np.meshgrid(np.arange(8) - 4, np.arange(64) - 32, indexing="ij")
    peak = 1 / (1 + 10 * rows**2 + columns**2)
    look(np.broadcast_to(peak.astype(complex), (12, 3, 8, 64)), None)
    assert "unusual shape (12, 3, 8, 64)" in look.lines[0]
