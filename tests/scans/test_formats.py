"""Every format is known by its content, and the same k-space comes out of all of them."""

import logging

import h5py
import numpy as np
import pytest
from scan_files import (
    lines_of,
    mrd_header,
    write_bart,
    write_fastmri,
    write_mat,
    write_mat_73,
    write_mrd,
)

from direct_deepen.errors import DeepenError
from direct_deepen.scans.preparation import Choices, prepare
from direct_deepen.scans.reading import open_scan


def npz(path, kspace):
    np.savez(path, kspace=kspace)
    return path


def npy(path, kspace):
    np.save(path, kspace)
    return path


WRITERS = {
    "a.h5": write_fastmri,
    "b.h5": lambda path, kspace: write_mrd(path, lines_of(kspace), mrd_header(*kspace.shape[-2:])),
    "c": write_bart,
    "d.npy": npy,
    "e.npz": npz,
    "f.mat": write_mat,
    "g.mat": write_mat_73,
}


def problems(path, axes=None, choices=None):
    with open_scan(path, axes) as scan:
        prepared = prepare(scan, choices)
        return [prepared.slice(number).problem for number in range(prepared.num_slices)]


@pytest.fixture(scope="module")
def expected(kspace, tmp_path_factory):
    """Problems of the plain array, by number."""
    return problems(npy(tmp_path_factory.mktemp("expected") / "a.npy", kspace))


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_slices_in_every_format_are_the_same_problems(tmp_path, kspace, expected, name):
    # Names are no help: what has an ending of another format is known all the same.
    path = WRITERS[name](tmp_path / name, kspace)
    found = problems(path)
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        difference = (one.masked_kspace - other.masked_kspace).abs().max() / other.masked_kspace.abs().max()
        assert difference < 1e-5
        assert float(one.scale / other.scale) == pytest.approx(1, abs=1e-5)
        assert (one.A.sensitivity_map - other.A.sensitivity_map).abs().max() < 1e-5


@pytest.mark.parametrize("name", WRITERS)
def test_an_error_names_its_file_once_and_is_no_other_than_it_is(tmp_path, kspace, name):
    path = WRITERS[name](tmp_path / name, 0 * kspace[:1])
    with pytest.raises(DeepenError, match="kspace is zero") as caught:
        problems(path)
    assert str(caught.value).count(str(path)) == 1
    # What goes wrong while a file is open is not taken for damage of it.
    with pytest.raises(RuntimeError, match=r"^another$"), open_scan(path):
        raise RuntimeError("another")


@pytest.mark.parametrize("name", ["x.npy", "x.h5", "x.dat", "x"])
def test_the_name_of_a_file_says_nothing(tmp_path, kspace, name):
    np.save(tmp_path / "a.npy", kspace)
    (tmp_path / "a.npy").rename(tmp_path / name)
    with open_scan(tmp_path / name) as scan:
        assert scan.kind.startswith("NumPy")


@pytest.mark.parametrize("named", ["scan", "scan.cfl", "scan.hdr"])
def test_either_file_of_bart_or_neither_names_the_pair(tmp_path, kspace, named):
    write_bart(tmp_path / "scan", kspace)
    with open_scan(tmp_path / named) as scan:
        assert scan.kspace.shape == kspace.shape
        assert scan.name == "scan"


def test_axes_may_be_told_and_one_coil_and_one_slice_need_none(tmp_path, kspace):
    np.save(tmp_path / "a.npy", kspace.transpose(2, 3, 0, 1))
    with open_scan(tmp_path / "a.npy", ["row", "column", "slice", "coil"]) as scan:
        np.testing.assert_array_equal(scan.kspace, kspace)
    for array in (kspace[0, 0], kspace[0]):
        np.save(tmp_path / "b.npy", array)
        (problem,) = problems(tmp_path / "b.npy")
        assert problem.masked_kspace.shape == (1, 1 if array.ndim == 2 else 4, 64, 64)


def test_bart_has_images_of_its_own_axes_and_averages_are_averaged(tmp_path, kspace):
    # Two echoes of two slices, twice; in the second average a line is missing.
    series = np.stack([kspace, 2 * kspace])
    twice = np.stack([series, series])
    twice[1, ..., 5] = 0
    write_bart(tmp_path / "a", twice, "AVG TE SLICE COIL READ PHS1")
    with open_scan(tmp_path / "a") as scan:
        assert scan.kspace.shape == (4, 4, 64, 64)
        assert scan.labels == ("TE 1, SLICE 1", "TE 1, SLICE 2", "TE 2, SLICE 1", "TE 2, SLICE 2")
        assert scan.places == ((0, 0), (1, 0), (0, 1), (1, 1))
        np.testing.assert_allclose(scan.kspace[3], 2 * kspace[1], rtol=1e-6)
        np.testing.assert_allclose(scan.kspace[(3, 2)], 2 * kspace[1, 2], rtol=1e-6)


# ---- Sampled positions


def test_sampled_positions_come_of_the_mask_or_of_the_zeros(tmp_path, kspace, lines, caplog):
    undersampled = kspace * lines
    with caplog.at_level(logging.WARNING):
        by_mask = problems(write_fastmri(tmp_path / "a.h5", undersampled, mask=lines))
        by_zeros = problems(npy(tmp_path / "b.npy", undersampled))
        by_acquisitions = problems(
            write_mrd(tmp_path / "c.h5", lines_of(kspace, np.flatnonzero(lines).tolist()), mrd_header(64, 64))
        )
    assert not caplog.records
    for found in zip(by_mask, by_zeros, by_acquisitions, strict=True):
        for problem in found:
            np.testing.assert_array_equal(problem.A.sampling_mask[0, 0].numpy(), np.broadcast_to(lines, (64, 64)))
            assert float(problem.scale / found[0].scale) == pytest.approx(1, abs=1e-5)


def test_a_mask_in_a_file_of_matlab_is_taken(tmp_path, kspace, lines):
    # Fully sampled data of which the mask leaves a part.
    plane = np.broadcast_to(lines, (64, 64))
    for mask in (plane, plane[..., None].repeat(2, axis=-1)):
        (found, _) = problems(write_mat(tmp_path / "a.mat", kspace, mask=mask.astype(np.uint8)))
        np.testing.assert_array_equal(found.A.sampling_mask[0, 0].numpy(), plane)


# ---- What is refused


def test_what_is_no_k_space_is_one_line(tmp_path, kspace, one_line_error):
    def refused(path, *words, axes=None):
        with one_line_error(path.stem, *words), open_scan(path, axes) as scan:
            prepare(scan)

    refused(tmp_path / "missing.h5", "no such file")
    refused(tmp_path, "a folder", "allowed")
    for name, content, words in (
        ("text.dat", b"hello", ("unknown format", "siemens_to_ismrmrd")),
        ("empty.h5", b"", ("is empty",)),
        ("image.dcm", b"\0" * 128 + b"DICM", ("images, not of k-space",)),
        ("broken.npy", b"\x93NUMPY\1\0", ("no array",)),
        ("broken.mat", b"MATLAB 5.0 MAT-file" + b"\0" * 200, ("no .mat file",)),
        ("broken.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 20, ("no file of HDF5",)),
        ("alone.hdr", b"# Dimensions\n2 2", ("alone.cfl", "no such file")),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, *words)
    np.save(tmp_path / "a.npy", kspace)
    refused(tmp_path / "a.npy", "axes are coil,row,column", "(2, 4, 64, 64)", axes=["coil", "row", "column"])
    refused(tmp_path / "a.npy", "echo", "allowed: slice, coil", axes=["echo", "coil", "row", "column"])
    refused(tmp_path / "a.npy", "each of them once", axes=["row", "coil", "row", "column"])
    refused(tmp_path / "a.npy", "row and column among them", axes=["slice", "coil", "row"])
    np.savez(tmp_path / "a.npz", a=kspace, b=kspace)
    refused(tmp_path / "a.npz", "a (2, 4, 64, 64) complex64, b", "one complex array")
    np.save(tmp_path / "five.npy", kspace[None])
    refused(tmp_path / "five.npy", "two to four axes")
    np.save(tmp_path / "real.npy", np.abs(kspace))
    refused(tmp_path / "real.npy", "complex")
    h5py.File(tmp_path / "other.h5", "w").close()
    refused(tmp_path / "other.h5", "holds nothing", "`kspace`")


def test_sizes_of_bart_are_held_to_what_there_is(tmp_path, kspace, one_line_error):
    write_bart(tmp_path / "a", kspace)
    (tmp_path / "a.hdr").write_text("# Dimensions\n64 64 1 4\n")
    with one_line_error("a.cfl", "bytes", "allowed"), open_scan(tmp_path / "a"):
        pass
    (tmp_path / "a.hdr").write_text("64 64\n")
    with one_line_error("a.hdr", "no header of BART"), open_scan(tmp_path / "a"):
        pass
    for axes, words in (
        ("PHS2 COIL READ PHS1", ("2D",)),
        ("MAPS COIL READ PHS1", ("MAPS 1",)),
    ):
        write_bart(tmp_path / "b", kspace, axes)
        with one_line_error("b: sizes are", *words), open_scan(tmp_path / "b"):
            pass
    write_bart(tmp_path / "a", kspace)
    with one_line_error("--axes", "BART"), open_scan(tmp_path / "a", ["row", "column"]):
        pass


@pytest.mark.parametrize("wrong", ["zero", "nan", "nothing but nan", "image", "order", "noise"])
def test_data_that_are_wrong_are_one_line(tmp_path, kspace, one_line_error, wrong):
    changed, words = kspace.copy(), ()
    if wrong == "zero":
        changed[:], words = 0, ("kspace is zero",)
    elif wrong == "nothing but nan":
        changed[:], words = np.nan, ("not finite",)
    elif wrong == "nan":
        changed[1, 0, 3, 3], words = np.nan, ("slice 2", "not finite")
    elif wrong == "image":
        changed, words = np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1))), ("central disc of k-space",)
    elif wrong == "order":
        changed, words = kspace.transpose(2, 3, 1, 0), ("allowed", "(slice, coil, row, column)")
    else:
        generator = np.random.default_rng(0)
        changed = generator.normal(size=(2, 4, 64, 64, 2)).astype(np.float32).view(np.complex64)[..., 0]
        words = ("central disc of k-space",)
    np.save(tmp_path / "a.npy", changed)
    with one_line_error("a.npy", *words):
        problems(tmp_path / "a.npy")


def test_a_centre_at_the_edge_is_moved(tmp_path, kspace, expected, caplog):
    np.save(tmp_path / "a.npy", np.fft.ifftshift(kspace, axes=(-2, -1)))
    with caplog.at_level(logging.INFO):
        found = problems(tmp_path / "a.npy")
    assert "moved to the middle" in caplog.text
    assert (found[0].masked_kspace - expected[0].masked_kspace).abs().max() < 1e-6


def test_without_a_centre_there_are_no_maps_unless_they_are_given(tmp_path, kspace, one_line_error):
    mask = np.zeros(64, dtype=bool)
    mask[::2] = True
    np.save(tmp_path / "a.npy", kspace * mask)
    with one_line_error("a.npy", "slice 1", "1 samples wide", ">= 4", "--maps"):
        problems(tmp_path / "a.npy")
    maps = np.ones((4, 64, 64), np.complex64) / 2
    assert len(problems(tmp_path / "a.npy", choices=Choices(sensitivity_map=maps, noise_std=0.01))) == 2
