"""What is found of a slice: noise, coils, maps; each choice is that, and told."""

import numpy as np
import pytest
import torch

from direct_deepen.scans.preparation import Choices, prepare
from direct_deepen.scans.scan import Scan


def scan_of(kspace, tmp_path, **known):
    return Scan(tmp_path / "a.npy", "array", kspace[None], **known)


def noise_like(shape, seed=0):
    return (np.random.default_rng(seed).normal(size=(*shape, 2)) @ [1, 1j]).astype(np.complex64)


@pytest.fixture(scope="module")
def many(kspace):
    """The first slice seen by twenty coils, which mix the four, with noise of 1e-3 of the largest sample."""
    mixing = noise_like((20, 4), seed=5) / 20**0.5
    mixed = np.einsum("vc,chw->vhw", mixing, kspace[0])
    eta = 1e-3 * np.abs(mixed).max()
    return (mixed + eta * noise_like(mixed.shape)).astype(np.complex64), eta


def test_many_coils_are_compressed_and_their_noise_stays_what_it_is(many, tmp_path):
    kspace, eta = many
    found = prepare(scan_of(kspace, tmp_path), Choices(most_coils=6)).slice(0)
    assert found.problem.masked_kspace.shape == (1, 6, 64, 64)
    assert "20, compressed to 6" in found.found["coils"]
    # Within the error that the estimate of the centre has, of four mixed coils.
    assert found.noise_std == pytest.approx(eta, rel=0.15)
    # Combinations are orthonormal: nothing of the signal of four coils is lost, and nothing is louder.
    energy = float((found.problem.masked_kspace * found.problem.scale).abs().square().sum())
    assert energy == pytest.approx(float((np.abs(kspace) ** 2).sum()), rel=0.01)


def test_the_noise_is_that_of_the_choice(many, tmp_path):
    kspace, eta = many
    kspace = kspace[:5]
    assert prepare(scan_of(kspace, tmp_path), Choices(noise_std=7.0)).slice(0).noise_std == 7
    # A noise scan in another unit than the data says how coils differ, and not how loud they are.
    gains = np.array([1, 1, 2, 1, 1])
    noise = 1e6 * eta * gains[:, None] * noise_like((5, 5000), seed=3)
    loud = kspace + eta * np.sqrt(gains**2 - 1)[:, None, None] * noise_like(kspace.shape, seed=4)
    scan = scan_of(loud, tmp_path, noise=noise)
    found = prepare(scan).slice(0)
    level = eta * (5 / (gains**-2.0).sum()) ** 0.5
    assert found.noise_std == pytest.approx(level, rel=0.15)
    assert "another unit" in found.found["noise level"]
    assert "5000 samples" in found.found["noise"]
    white = prepare(scan, Choices(noise="white")).slice(0)
    assert "white" in white.found["noise"]
    torch.testing.assert_close(
        white.problem.masked_kspace[0] * white.problem.scale, torch.from_numpy(loud.astype(np.complex64))
    )
    corners = prepare(scan, Choices(noise="corners")).slice(0)
    # Variances from the corners are right within 30 % (physics/prewhitening.py), levels within 15 %.
    assert corners.noise_std == pytest.approx(level, rel=0.25)
    covariance = np.diag(gains**2.0).astype(complex) * eta**2
    told = prepare(scan_of(loud, tmp_path, noise_covariance=covariance)).slice(0)
    assert told.noise_std == pytest.approx(level, rel=1e-4)


def test_nothing_tells_the_noise_of_one_coil_that_has_no_corners(kspace, tmp_path):
    y, x = np.meshgrid(*[np.arange(64) - 32] * 2, indexing="ij")
    found = prepare(scan_of(kspace[0, :1] * (np.hypot(x, y) < 30), tmp_path)).slice(0)
    assert found.noise_std is None
    assert "--noise-std" in found.found["noise level"]
    assert "one coil" in found.found["coil maps"]


def test_maps_that_are_given_are_used(kspace, tmp_path):
    maps = np.exp(1j * np.arange(4))[:, None, None] * np.ones((4, 64, 64)) / 2
    found = prepare(scan_of(kspace[0], tmp_path), Choices(sensitivity_map=maps.astype(np.complex64))).slice(0)
    assert found.found["coil maps"] == "given"
    # In the gauge of the energies: up to a phase of the image.
    product = (found.problem.A.sensitivity_map[0] * torch.from_numpy(maps.conj())).sum(dim=0).abs()
    torch.testing.assert_close(product, torch.ones_like(product), rtol=1e-5, atol=1e-5)


def test_one_set_of_maps_serves_all_slices_and_loses_what_k_space_loses(kspace, tmp_path):
    """Given maps stand for pixels: those of a k-space that is cut, or of half the field of view, are what they were."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, 64)] * 2, indexing="ij")
    maps = np.stack([np.exp(0.5j * y), 1 + 0.3 * x, 0.6 - 0.2j * y, np.exp(-1j * x)]).astype(np.complex64)
    maps /= np.linalg.norm(maps, axis=0)
    inner = kspace.copy()
    inner[..., :12] = inner[..., 52:] = 0
    scan = Scan(tmp_path / "a.npy", "array", inner)
    for number in (0, 1):
        found = prepare(scan, Choices(sensitivity_map=maps)).slice(number).problem.A.sensitivity_map[0]
        assert found.shape == (4, 64, 40)
        # Bilinear between pixels, away from the border where maps are not periodic; up to the phase of the image.
        where = np.arange(8, 32)
        place = 32 + (where - 20) * 64 / 40
        low = np.floor(place).astype(int)
        expected = maps[:, 8:56, low] * (1 - place + low) + maps[:, 8:56, low + 1] * (place - low)
        product = (found[:, 8:56, 8:32] * torch.from_numpy(expected.astype(np.complex64)).conj()).sum(dim=0).abs()
        assert (product - 1).abs().max() < 0.02


def test_choices_that_cannot_be_are_one_line(kspace, tmp_path, one_line_error):
    maps = np.ones((4, 64, 64), np.complex64)
    for name, value, words in (
        ("noise", "pink", ("noise is 'pink'", "corners, white")),
        ("noise_std", -1.0, ("noise_std is -1.0",)),
        ("noise_std", float("nan"), ("noise_std is nan",)),
        ("most_coils", 0, ("coils after compression is 0",)),
        ("intensity_scale", "mean", ("intensity_scale is 'mean'",)),
        ("sensitivity_map", maps.real, ("coil maps", "complex")),
        ("sensitivity_map", maps[0], ("coil maps have shape (64, 64)",)),
    ):
        with one_line_error(*words):
            Choices(**{name: value})
    for wrong in (maps[:3], maps[:, :32], np.stack([maps] * 3)):
        with one_line_error("a.npy", "slice 1", str(wrong.shape), "(4, 64, 64)"):
            prepare(scan_of(kspace[0], tmp_path), Choices(sensitivity_map=wrong)).slice(0)


@pytest.mark.filterwarnings("error")
def test_a_mask_of_zeros_is_one_line(kspace, tmp_path, one_line_error):
    for mask in (np.zeros(64), np.zeros((64, 64), bool)):
        with one_line_error("a.npy", "mask"):
            prepare(scan_of(kspace[0], tmp_path, mask=mask))


def test_a_calibration_scan_of_other_slices_is_one_line(kspace, tmp_path, one_line_error):
    scan = Scan(tmp_path / "a.npy", "array", kspace, calibration=kspace[:1])
    prepare(scan).slice(0)
    with one_line_error("slice 2", "calibration scan has 1 slices"):
        prepare(scan).slice(1)
    # Of two series of one slice it serves both.
    series = Scan(tmp_path / "a.npy", "array", kspace, calibration=kspace[:1], places=((0, 0), (0, 1)))
    assert prepare(series).slice(1).noise_std
