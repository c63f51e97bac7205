"""`direct-deepen reconstruct`: one command from a file to images."""

import re

import nibabel
import numpy as np
import pytest

from direct_deepen.cli.main import main
from direct_deepen.data.phantom import brain_volume
from direct_deepen.posterior.posterior_file import read_posterior


@pytest.fixture(scope="module")
def kspace():
    return brain_volume(np.random.default_rng([3, 0]), num_slices=2, size=64, num_coils=4).kspace.astype(np.complex64)


def test_a_file_becomes_images_a_page_and_a_table(kspace, tmp_path, capsys):
    np.save(tmp_path / "head.npy", kspace)
    arguments = ["reconstruct", str(tmp_path / "head.npy"), "--out", str(tmp_path / "out")]
    fast = ["--samples", "2", "--steps", "4", "--accelerate", "2", "--mask", "2d", "--save-samples", "--dicom"]
    assert main([*arguments, *fast]) == 0
    told = capsys.readouterr().out
    assert "NumPy, axes slice, coil, row, column, 2 slices of 64×64" in told
    for name in ("sampling", "noise level", "coil maps", "prior"):
        assert re.search(rf"^  {name} +\S", told, re.MULTILINE), name
    names = ["posterior.h5", "png", "html", "map.nii.gz", "mean.nii.gz", "std.nii.gz", "dicom"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"head{'_' if 'nii' in name or name == 'dicom' else '.'}{name}" for name in names
    )
    volume = read_posterior(tmp_path / "out" / "head.posterior.h5")
    image = nibabel.load(tmp_path / "out" / "head_mean.nii.gz")
    np.testing.assert_allclose(np.asarray(image.dataobj).T, np.abs(volume.arrays["mean"]), rtol=1e-6)
    assert len(list((tmp_path / "out" / "head_dicom").glob("mean_*.dcm"))) == len(volume.arrays["mean"]) == 2
    assert f"wrote {tmp_path / 'out' / 'head_dicom'}\n" in told
    # The figures of the terminal are those of the page.
    psnr = re.search(r"slice 1: map ([\d.]+) dB", told)[1]
    assert f"{psnr} dB" in (tmp_path / "out" / "head.html").read_text(encoding="utf-8")
    assert '<form class="region"' in (tmp_path / "out" / "head.html").read_text(encoding="utf-8")
    # `posterior` shows the same file with the reference that is in it.
    capsys.readouterr()
    assert main(["posterior", str(volume.path)]) == 0
    assert f"PSNR (slice maximum), MAP: {psnr} dB" in capsys.readouterr().out
    # One slice, MAP alone, of the same k-space: another file, without what is not there.
    assert main([*arguments, "--samples", "0", "--slice", "2"]) == 0
    alone = read_posterior(tmp_path / "out" / "head.posterior.h5")
    assert alone.arrays["map"].shape == (1, 64, 64)
    assert "reference" not in alone.arrays


def test_bad_input_is_one_line_and_leaves_nothing(kspace, tmp_path, capsys):
    np.save(tmp_path / "a.npy", kspace)
    np.save(tmp_path / "zero.npy", 0 * kspace)
    np.save(tmp_path / "maps.npy", kspace[:, :3])
    half = kspace * (np.arange(64) % 2 == 0)
    np.save(tmp_path / "half.npy", half)
    out = tmp_path / "out"
    for arguments, words in (
        (["a.npy", "--slice", "3"], ("--slice is 3", "1 to 2")),
        (["a.npy", "--axes", "coil,row"], ("axes are coil,row",)),
        (["a.npy", "--weights", "knee"], ("knee", "brain")),
        (["a.npy", "--samples", "-1"], ("num_samples is -1",)),
        (["a.npy", "--accelerate", "0.5"], ("acceleration is 0.5",)),
        (["half.npy", "--accelerate", "2"], ("half.npy", "undersampled already")),
        (["half.npy"], ("half.npy", "slice 1", "--maps")),
        (["zero.npy"], ("zero.npy", "kspace is zero")),
        (["a.npy", "--noise-std", "-1"], ("noise_std is -1.0",)),
        (["a.npy", "--coils", "0"], ("coils after compression is 0",)),
        (["a.npy", "--maps", str(tmp_path / "maps.npy")], ("coil maps have shape",)),
        (["a.npy", "--matrix", "64"], ("--matrix is 64",)),
        (["nothing.h5"], ("nothing.h5", "no such file")),
    ):
        assert main(["reconstruct", str(tmp_path / arguments[0]), *arguments[1:], "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        for word in words:
            assert word in error, error
        assert not out.exists(), arguments
