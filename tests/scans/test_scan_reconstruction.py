"""A scan becomes a posterior file, slice by slice: as Python has it, and going on where a run ended."""

from pathlib import Path

import numpy as np
import pytest
import torch

import direct_deepen
from direct_deepen import reconstruct_kspace
from direct_deepen.engines.trained import load_system
from direct_deepen.errors import DeepenError
from direct_deepen.physics.rings import num_rings
from direct_deepen.posterior.posterior_file import read_posterior
from direct_deepen.priors.pretrained import available_pretrained
from direct_deepen.scans import reconstruction
from direct_deepen.scans.preparation import Choices, prepare
from direct_deepen.scans.reading import open_scan
from direct_deepen.scans.reconstruction import Method, Run, pretrained_prior
from direct_deepen.scans.undersampling import Undersampling

ROOT = Path(__file__).parents[2]
METHOD = Method(num_samples=2, num_steps=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory, kspace, lines):
    """Three slices, the second without a signal."""
    found = np.stack([kspace[0], 0 * kspace[0], kspace[1]]) * lines
    np.save(tmp_path_factory.mktemp("scan") / "a.npy", found)
    return tmp_path_factory.getbasetemp() / "scan0" / "a.npy"


def run(path, folder, **options):
    method = options.pop("method", METHOD)
    with open_scan(path) as scan:
        return Run(prepare(scan), pretrained_prior(), method, folder, **options).reconstruct()


@pytest.fixture(scope="module")
def volume(path, tmp_path_factory):
    return read_posterior(run(path, tmp_path_factory.mktemp("out")))


def test_the_file_has_what_python_returns(volume, path):
    found = reconstruct_kspace(np.load(path), method=METHOD)
    for name in ("map", "scale", "noise_std", "cost"):
        np.testing.assert_allclose(found.arrays[name], volume.arrays[name], rtol=1e-5, atol=1e-7)
    assert found.image.shape == found.std.shape == found.map.shape == (3, 64, 64)
    assert found.found[1] == {}
    assert "ESPIRiT" in found.found[2]["coil maps"]
    # Samples are those of a file's name and a slice's number.
    assert volume.arrays["mean"].shape == (3, 64, 64)
    assert not volume.arrays["mean"][1].any()
    assert not volume.arrays["std"][1].any()
    assert volume.arrays["slice_number"].tolist() == [0, 1, 2]


def test_the_image_is_that_of_the_data_in_their_unit(kspace, lines):
    """MAP of data times a factor is MAP times that factor; and it is nearer to the image of all samples than zeros."""
    one = reconstruct_kspace(kspace[0] * lines, method=Method(num_samples=0))
    times = reconstruct_kspace(torch.from_numpy(1e3 * kspace[0] * lines), method=Method(num_samples=0))
    np.testing.assert_allclose(times.map / 1e3, one.map, rtol=1e-3, atol=1e-3 * np.abs(one.map).max())
    full = reconstruct_kspace(kspace[0], method=Method(num_samples=0))
    zero_filled = np.linalg.norm(np.fft.ifft2(np.fft.ifftshift(kspace[0] * lines, axes=(-2, -1)), norm="ortho"), axis=0)
    zero_filled = np.fft.fftshift(zero_filled)
    error = [np.linalg.norm(np.abs(image) - np.abs(full.map[0])) for image in (one.map[0], zero_filled)]
    assert error[0] < 0.5 * error[1]
    with pytest.raises(DeepenError, match="num_samples"):
        _ = full.std


def test_a_run_goes_on_where_it_ended(path, volume, tmp_path, monkeypatch):
    solve, calls = reconstruction.reconstruct_slice, []

    def interrupted(*args, **options):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*args, **options)

    monkeypatch.setattr(reconstruction, "reconstruct_slice", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(path, tmp_path)
    assert not (tmp_path / "a.posterior.h5").exists()
    written = run(path, tmp_path)
    # The slice that was finished is not computed again, nor the one without a signal.
    assert len(calls) == 3
    again = read_posterior(written)
    for name, array in volume.arrays.items():
        if "seconds" not in name:
            np.testing.assert_array_equal(again.arrays[name], array)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.posterior.h5"]
    # A file that is whole is left as it is; with other settings it is computed anew.
    run(path, tmp_path)
    assert len(calls) == 3
    run(path, tmp_path, method=Method(num_samples=0))
    assert len(calls) == 5
    assert "mean" not in read_posterior(written).arrays


def test_what_the_file_says_of_itself(volume):
    told = volume.attributes
    assert volume.name == "a.npy"
    assert told["direct_deepen_version"] == direct_deepen.__version__
    assert told["prior"] == "brain"
    assert (told["num_samples"], told["num_steps"], told["seed"]) == (2, 4, 0)
    assert "sampling: lines" in told["configuration"]
    assert told["averaged_noise"]
    levels, least = volume.arrays["noise_by_ring"], volume.arrays["noise_std"] / 2**0.5
    assert levels.shape == (len(least), num_rings(*volume.arrays["map"].shape[-2:]))
    np.testing.assert_allclose(levels.min(axis=1), least, rtol=1e-6)
    # Two rounds of two chains, with eight steps and two evaluations at the start; and a MAP.
    assert ((volume.arrays["noise_gradient_evaluations"] > 40) == (least > 0)).all()  # one slice has no signal


def test_slices_that_are_chosen_keep_their_numbers(path, volume, tmp_path):
    with open_scan(path) as scan:
        chosen = read_posterior(Run(prepare(scan), pretrained_prior(), METHOD, tmp_path).reconstruct([2]))
    assert chosen.arrays["slice_number"].tolist() == [2]
    for name in ("map", "mean", "std"):
        np.testing.assert_array_equal(chosen.arrays[name][0], volume.arrays[name][2])


def test_the_method_is_that_of_the_configuration_of_these_weights():
    configured = load_system(ROOT / "configs" / "brain_deepen_posterior.yaml").inference
    for name in ("num_steps", "keep", "preconditioner", "averaged_noise", "tolerance", "max_iterations", "start"):
        assert getattr(Method().inference(0.01), name) == getattr(configured, name), name


def test_every_prior_that_comes_along_will_do():
    scales = {name: pretrained_prior(name).intensity_scale for name in available_pretrained()}
    assert scales == {"brain": "object", "brain_phantom_2d4x": "field_of_view"}


def test_snr_is_in_units_of_the_noise(path, tmp_path):
    choices = Choices(noise_std=0.5)
    with open_scan(path) as scan:
        plain = Run(prepare(scan, choices), pretrained_prior(), Method(num_samples=0), tmp_path / "a").reconstruct()
        snr = Run(
            prepare(scan, choices), pretrained_prior(), Method(num_samples=0), tmp_path / "b", snr=True
        ).reconstruct()
    found = read_posterior(snr)
    np.testing.assert_allclose(found.arrays["map"], 2 * read_posterior(plain).arrays["map"], rtol=1e-6)
    assert "SNR" in found.attributes["units"]


def test_a_trial_keeps_its_reference(kspace, tmp_path):
    np.save(tmp_path / "a.npy", kspace[:1])
    with open_scan(tmp_path / "a.npy") as scan:
        choices = Choices(undersampling=Undersampling(2, "2d"))
        prepared = prepare(scan, choices).slice(0)
    sampled = prepared.problem.A.sampling_mask
    assert float(sampled.double().mean()) == pytest.approx(0.5, abs=0.01)
    # With the maps of what is left, the image of all samples.
    A = prepared.problem.A.fully_sampled()
    expected = A.adjoint(torch.from_numpy(kspace[:1]))[0]
    torch.testing.assert_close(prepared.reference, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_methods_that_cannot_be_are_one_line(one_line_error):
    for name, value in (("num_samples", -1), ("num_steps", 0), ("seed", -1), ("prior_weight", 0.0)):
        with one_line_error(name, str(value)):
            Method(**{name: value})
    with one_line_error("kspace has type float64"):
        reconstruct_kspace(np.ones((4, 64, 64)))
    with one_line_error("kspace has shape (3,)"):
        reconstruct_kspace(np.ones(3))
