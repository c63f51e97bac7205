"""What is read off the samples of a posterior, and the file it is written to."""

import errno
import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.stats import t as student

from direct_deepen.errors import DeepenError
from direct_deepen.inference import Samples
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.posterior.posterior_file import PosteriorWriter, posterior_path, read_posterior

CHAINS, KEEP = 3, 4


def make_samples(images: torch.Tensor, *, chains: int) -> Samples:
    """Samples (chain·keep, batch, height, width), without a history."""
    return Samples(images, 0, torch.arange(chains).repeat_interleave(len(images) // chains))


@pytest.fixture
def images(draw) -> torch.Tensor:
    return draw(CHAINS * KEEP, 2, 5, 6) + 0.5


@pytest.fixture
def posterior(images) -> Posterior:
    return Posterior.from_samples(make_samples(images, chains=CHAINS))


def in_phase(array: np.ndarray) -> np.ndarray:
    """The part of samples, complex (sample, ...), that has the phase of their mean."""
    return np.real(array * np.exp(-1j * np.angle(array.mean(axis=0))))


# ---- Moments and intervals


def test_moments_equal_those_of_numpy(posterior, images):
    array = images.numpy()
    # Sums of twelve terms in double precision: rounding.
    np.testing.assert_allclose(posterior.mean.numpy(), array.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(posterior.std.numpy(), in_phase(array).std(axis=0, ddof=1), rtol=1e-13)
    per_component = np.sqrt((array.real.var(axis=0, ddof=1) + array.imag.var(axis=0, ddof=1)) / 2)
    np.testing.assert_allclose(posterior.std_complex.numpy(), per_component, rtol=1e-13)
    assert posterior.mean.is_complex()
    assert not posterior.std.is_complex()


def test_the_mean_of_what_is_in_phase_is_the_magnitude_of_the_mean(posterior, images):
    # Whatever the signal: where there is none, the mean of magnitudes is that of noise.
    real = posterior.in_phase(images)
    torch.testing.assert_close(real.mean(dim=0), posterior.mean.abs(), rtol=1e-12, atol=1e-12)
    assert bool((images.abs().mean(dim=0) > posterior.mean.abs()).all())
    # Another phase of all samples changes nothing, and a strong signal is its magnitude.
    turned = Posterior.from_images(images * torch.exp(torch.tensor(2j, dtype=torch.complex128)))
    torch.testing.assert_close(turned.in_phase(turned.images), real, rtol=1e-12, atol=1e-12)
    bright = Posterior.from_images(1e6 + images)
    torch.testing.assert_close(bright.in_phase(bright.images), bright.images.abs(), rtol=0, atol=1e-4)


def test_what_is_zero_in_every_sample_has_no_phase_and_is_zero():
    nothing = Posterior.from_images(torch.zeros(3, 1, 2, 2, dtype=torch.complex64))
    for figure in (nothing.in_phase(nothing.images), nothing.std, *nothing.interval(0.9)):
        assert not bool(figure.any())


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_interval_is_student_s_for_one_more_and_counts_chains(posterior, images, level):
    lower, upper = posterior.interval(level)
    real = in_phase(images.numpy())
    half = student.ppf((1 + level) / 2, CHAINS - 1) * real.std(axis=0, ddof=1) * np.sqrt(1 + 1 / CHAINS)
    np.testing.assert_allclose(lower.numpy(), real.mean(axis=0) - half, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(upper.numpy(), real.mean(axis=0) + half, rtol=1e-10, atol=1e-10)


def test_intervals_nest(posterior):
    narrow, wide = posterior.interval(0.5), posterior.interval(0.9)
    assert bool((wide[0] <= narrow[0]).all())
    assert bool((narrow[1] <= wide[1]).all())


@pytest.mark.parametrize(("signal", "samples"), [(0.0, 16), (100.0, 4), (100.0, 16)])
def test_an_interval_holds_its_share_with_and_without_a_signal_however_few_samples_there_are(draw, signal, samples):
    pixels = 20_000
    drawn = signal + draw(samples + 1, 1, 1, pixels)
    posterior = Posterior.from_images(drawn[1:])
    lower, upper = posterior.interval(0.9)
    reference = posterior.in_phase(drawn[0])
    share = float(((lower <= reference) & (reference <= upper)).double().mean())
    # Four standard errors. Without a signal the phase is that of the samples' own noise, whose mean then is too far
    # from zero: with 16 of them by 1/16 in the square of an error of 17/16.
    assert share == pytest.approx(0.9, abs=4 * (0.09 / pixels) ** 0.5 + (0.01 if signal == 0 else 0))


def test_a_single_chain_has_no_interval(images, one_line_error):
    with one_line_error("1 chain", "allowed", "2 or more"):
        Posterior.from_samples(make_samples(images, chains=1)).interval(0.9)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_precision_is_that_of_the_samples(images, dtype):
    posterior = Posterior.from_samples(make_samples(images.to(dtype), chains=CHAINS))
    real = images.to(dtype).real.dtype
    assert posterior.mean.dtype == dtype
    assert {posterior.std.dtype, posterior.std_complex.dtype, *(end.dtype for end in posterior.interval(0.9))} == {real}


def test_one_sample_has_no_spread(draw):
    image = draw(1, 2, 5, 6)
    posterior = Posterior.from_samples(make_samples(image, chains=1))
    assert torch.equal(posterior.mean, image[0])
    assert torch.equal(posterior.std, torch.zeros(2, 5, 6, dtype=torch.float64))
    assert torch.equal(posterior.std_complex, torch.zeros(2, 5, 6, dtype=torch.float64))
    torch.testing.assert_close(posterior.quantiles([0.05]), image.abs(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("chains", [1, CHAINS])
def test_quantiles_are_those_of_numpy(images, chains):
    probabilities = [0.05, 0.3, 0.5, 0.95]
    some = Posterior.from_images(images[:chains])
    expected = np.quantile(in_phase(images[:chains].numpy()), probabilities, axis=0)
    # Linear interpolation in double precision: rounding.
    np.testing.assert_allclose(some.quantiles(probabilities).numpy(), expected, rtol=1e-12, atol=1e-13)


def test_samples_of_every_sampler_have_a_posterior(images):
    posterior = Posterior.from_samples(Samples.independent(images, gradient_evaluations=1))
    expected = Posterior.from_images(images)
    assert torch.equal(posterior.mean, expected.mean)
    assert posterior.diagnostics == expected.diagnostics
    assert posterior.diagnostics.split_r_hat is None


def test_probabilities_are_from_zero_to_one(posterior, one_line_error):
    with one_line_error("probabilities", "1.5", "allowed"):
        posterior.quantiles([0.5, 1.5])


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 90.0, float("nan")])
def test_levels_are_between_zero_and_one(posterior, one_line_error, level):
    with one_line_error("level", repr(level)):
        posterior.interval(level)


# ---- Another spread


def test_rescaling_keeps_the_mean_and_scales_the_deviations(posterior, images):
    before = images.clone()
    rescaled = posterior.rescaled(3.0)
    torch.testing.assert_close(rescaled.mean, posterior.mean)
    torch.testing.assert_close(rescaled.std_complex, 3 * posterior.std_complex)
    torch.testing.assert_close(rescaled.images - posterior.mean, 3 * (images - posterior.mean))
    # Intervals widen about where they were.
    torch.testing.assert_close(rescaled.std, 3 * posterior.std)
    away = [3 * (end - posterior.mean.abs()) for end in posterior.interval(0.9)]
    torch.testing.assert_close([end - posterior.mean.abs() for end in rescaled.interval(0.9)], away)
    assert rescaled.diagnostics is posterior.diagnostics
    assert torch.equal(images, before)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_scales_are_finite_and_positive(posterior, one_line_error, scale):
    with one_line_error("std_scale", repr(scale)):
        posterior.rescaled(scale)


# ---- Diagnostics


def test_diagnostics_are_those_of_what_is_in_phase_chain_by_chain(draw):
    images = draw(4 * 50, 1, 3, 3) + 10
    diagnostics = Posterior.from_samples(make_samples(images, chains=4)).diagnostics
    assert (diagnostics.num_chains, diagnostics.keep) == (4, 50)
    assert diagnostics.split_r_hat.shape == (1, 3, 3)
    assert float(diagnostics.split_r_hat.max()) < 1.1
    # The phase of all does not matter; that of one chain moves the mean, and it has not converged.
    turned = images * torch.polar(torch.ones(1), torch.tensor([2.0]))
    again = Posterior.from_samples(make_samples(turned, chains=4)).diagnostics
    torch.testing.assert_close(again.split_r_hat, diagnostics.split_r_hat, rtol=1e-6, atol=0)
    turned[:50] *= 1j
    assert float(Posterior.from_samples(make_samples(turned, chains=4)).diagnostics.split_r_hat.min()) > 2


@pytest.mark.parametrize("keep", [1, 4, 9])
def test_diagnostics_are_not_available_for_fewer_than_ten_states_a_chain(draw, keep):
    diagnostics = Posterior.from_samples(make_samples(draw(5 * keep, 2, 3, 3), chains=5)).diagnostics
    assert (diagnostics.num_chains, diagnostics.keep) == (5, keep)
    assert diagnostics.split_r_hat is None
    assert diagnostics.effective_sample_size is None
    assert diagnostics.monte_carlo_error is None


# ---- The file

VOLUME = Path("/data/file_7.h5")
OTHER = Path("/data/file_8.h5")


def arrays(number: int) -> dict[str, np.ndarray]:
    return {"map": np.full((2, 3), number + 1j, dtype=np.complex64), "scale": np.float32(number)}


@pytest.fixture
def writer(tmp_path) -> PosteriorWriter:
    attributes = {"method": "deepen", "noise_std": 0.01}
    return PosteriorWriter(tmp_path / "out", {VOLUME: 3, OTHER: 1}, {VOLUME: attributes, OTHER: attributes})


def test_a_volume_is_written_when_its_last_slice_arrives_in_the_order_of_slices(writer):
    assert writer.add(VOLUME, 2, arrays(2)) is None
    assert writer.add(VOLUME, 0, arrays(0)) is None
    assert not writer.directory.exists()
    path = writer.add(VOLUME, 1, arrays(1))
    assert path == posterior_path(writer.directory, VOLUME) == writer.directory / "file_7.posterior.h5"
    with h5py.File(path) as file:
        assert {name for name, dataset in file.items() if not dataset.is_scale} == {"map", "scale", "slice_number"}
        np.testing.assert_array_equal(file["map"][:], np.stack([arrays(number)["map"] for number in range(3)]))
        assert file["map"].dtype == np.complex64
        assert file["scale"][:].tolist() == [0, 1, 2]


def test_attributes_are_in_the_file(writer):
    path = writer.add(OTHER, 0, arrays(0))
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"method": "deepen", "noise_std": 0.01}


def test_volumes_do_not_wait_for_one_another(writer):
    writer.add(VOLUME, 0, arrays(0))
    assert writer.add(OTHER, 0, arrays(5)) is not None
    assert [path.name for path in writer.directory.iterdir()] == ["file_8.posterior.h5"]


def test_slices_given_twice_count_once(writer):
    writer.add(VOLUME, 0, arrays(7))
    writer.add(VOLUME, 0, arrays(0))
    assert writer.add(VOLUME, 1, arrays(1)) is None
    path = writer.add(VOLUME, 2, arrays(2))
    with h5py.File(path) as file:
        assert file["scale"][:].tolist() == [0, 1, 2]


def test_an_older_file_is_replaced(writer):
    writer.add(OTHER, 0, arrays(0))
    path = writer.add(OTHER, 0, arrays(9))
    with h5py.File(path) as file:
        assert file["scale"][:].tolist() == [9]


def test_a_write_that_fails_names_the_file_and_leaves_the_older_one_as_it_was(writer, one_line_error, full_disk):
    path = writer.add(OTHER, 0, arrays(0))
    before = path.read_bytes()
    with full_disk(), one_line_error(str(path), "No space left"):
        writer.add(OTHER, 0, arrays(9))
    assert path.read_bytes() == before
    assert list(writer.directory.iterdir()) == [path]


def test_what_is_read_is_what_was_written_and_no_more_samples_than_asked_for(writer):
    samples = np.arange(5 * 2 * 3).reshape(5, 2, 3).astype(np.complex64)
    path = writer.add(OTHER, 0, {**arrays(4), "samples": samples})
    volume = read_posterior(path)
    assert set(volume.arrays) == {"map", "scale", "slice_number"}
    np.testing.assert_array_equal(volume.arrays["map"][0], arrays(4)["map"])
    assert volume.attributes == {"method": "deepen", "noise_std": 0.01}
    np.testing.assert_array_equal(read_posterior(path, num_samples=3).arrays["samples"][0], samples[[0, 2, 4]])
    np.testing.assert_array_equal(read_posterior(path, num_samples=9).arrays["samples"][0], samples)


def test_the_dimensions_have_names_and_a_file_without_them_is_read_as_well(writer, tmp_path):
    shape = (5, 2, 3)
    path = writer.add(OTHER, 0, {**arrays(4), "samples": np.ones(shape), "quantiles": np.ones((2, 2, 3))})
    with h5py.File(path) as file, h5py.File(tmp_path / "old.posterior.h5", "w") as old:
        for name, between in (("samples", ["sample"]), ("quantiles", ["quantile"]), ("map", [])):
            dimensions = ["slice", *between, "row", "column"]
            assert [axis.label for axis in file[name].dims] == dimensions
            assert [axis[0].shape for axis in file[name].dims] == [(size,) for size in file[name].shape]
            old[name] = file[name][()]
    assert set(read_posterior(path).arrays) == {"map", "scale", "quantiles", "slice_number"}
    assert set(read_posterior(tmp_path / "old.posterior.h5").arrays) == {"map", "quantiles"}


def test_a_file_that_is_none_is_refused_in_one_line(tmp_path, one_line_error):
    with one_line_error("none.posterior.h5", "no such file"):
        read_posterior(tmp_path / "none.posterior.h5")
    (tmp_path / "text.posterior.h5").write_text("no HDF5")
    with one_line_error("text.posterior.h5", "no output of `direct predict`"):
        read_posterior(tmp_path / "text.posterior.h5")


def test_an_unknown_volume_is_refused_by_name(writer, one_line_error):
    with one_line_error("/data/file_9.h5", error=DeepenError):
        writer.add(Path("/data/file_9.h5"), 0, arrays(0))


def with_samples(number: int, size: int = 4) -> dict[str, np.ndarray]:
    return {**arrays(number), "samples": np.full((3, size, size), number + 1j, dtype=np.complex64)}


@pytest.mark.parametrize("numbers", [[0, 1, 2], [9, 4, 7], [2, 1, 3]], ids=str)
def test_samples_are_in_the_order_of_slices_in_whichever_they_came(writer, numbers):
    for number in numbers[:2]:
        assert writer.add(VOLUME, number, with_samples(number)) is None
        # On the disk, and under another name.
        (part,) = writer.directory.iterdir()
        assert part.suffix == ".part"
    path = writer.add(VOLUME, numbers[2], with_samples(numbers[2]))
    assert list(writer.directory.iterdir()) == [path]
    with h5py.File(path) as file:
        assert file["slice_number"][:].tolist() == sorted(numbers)
        np.testing.assert_array_equal(file["samples"][:, 2, 1, 0], np.array(sorted(numbers)) + 1j)
        assert [axis.label for axis in file["samples"].dims] == ["slice", "sample", "row", "column"]
        assert dict(file.attrs) == {"method": "deepen", "noise_std": 0.01}


def test_samples_of_empty_slices_are_zero_and_of_slices_given_twice_the_last(writer):
    writer.add(VOLUME, 0, {})
    writer.add(VOLUME, 1, with_samples(7))
    writer.add(VOLUME, 1, with_samples(1))
    path = writer.add(VOLUME, 2, {})
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["samples"][:, 0, 0, 0], [0, 1 + 1j, 0])


def test_nothing_is_left_of_a_volume_that_is_not_complete_and_another_run_takes_away_what_a_kill_left(writer):
    writer.add(VOLUME, 0, with_samples(0))
    writer.close()
    assert list(writer.directory.iterdir()) == []
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (writer.directory / f"file_8.posterior.h5.{ended.pid}.part").write_bytes(b"half")
    path = writer.add(OTHER, 0, with_samples(0))
    assert list(writer.directory.iterdir()) == [path]
    # What was complete stays, and is replaced by what is complete.
    before = path.read_bytes()
    unfinished = PosteriorWriter(writer.directory, {OTHER: 2}, {OTHER: {}})
    unfinished.add(OTHER, 0, with_samples(5))
    assert path.read_bytes() == before
    unfinished.close()
    assert list(writer.directory.iterdir()) == [path]
    assert path.read_bytes() == before


@pytest.mark.parametrize("room", [0, 3_000, 150_000, 300_000])
def test_a_full_disk_is_one_line_while_samples_are_written(writer, one_line_error, monkeypatch, room):
    path = writer.add(OTHER, 0, with_samples(0))
    before = path.read_bytes()

    class FullDisk(io.BytesIO):
        def write(self, content):
            if self.tell() + len(content) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content)

    # HDF5 itself ends the process where it cannot write what it holds of a file.
    with monkeypatch.context() as patch, one_line_error("file_7.posterior.h5", "No space left"):
        patch.setattr(Path, "open", lambda *_, **__: FullDisk())
        for number in range(3):
            writer.add(VOLUME, number, with_samples(number, size=64))
    assert path.read_bytes() == before
    assert list(writer.directory.iterdir()) == [path]


def test_of_the_samples_of_a_volume_one_slice_is_in_memory(tmp_path):
    volume, size, slices = tmp_path / "a.h5", 64, 16
    writer = PosteriorWriter(tmp_path, {volume: slices}, {volume: {}})
    tracemalloc.start()
    for number in range(slices):
        writer.add(volume, number, with_samples(number, size))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # It was 36 slices: those of the volume, the file, and its bytes.
    assert peak < 3 * with_samples(0, size)["samples"].nbytes
