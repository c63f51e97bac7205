"""Laws of the brain phantom and of the fastMRI files it is written to."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import sigpy.mri
import torch

from direct_deepen.cli.main import build_parser, main
from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.data.phantom import PhantomVolume, anatomy, brain_volume, head, write_phantoms
from direct_deepen.data.phantom.geometry import SmoothField
from direct_deepen.data.phantom.head import Appearance
from direct_deepen.data.phantom.volume import DEFAULT_NOISE_STD, birdcage_maps
from direct_deepen.errors import DeepenError
from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.physics.scale import full_sampling_scale


def draw(
    seed: int, *, num_slices: int = 2, size: int = 64, num_coils: int = 4, noise_std: float = 0.007
) -> PhantomVolume:
    generator = np.random.default_rng([seed, 0])
    return brain_volume(generator, num_slices=num_slices, size=size, num_coils=num_coils, noise_std=noise_std)


def noise_free_kspace(volume: PhantomVolume) -> np.ndarray:
    return fft2(torch.from_numpy(volume.image[:, None] * volume.sensitivity_map)).numpy()


def scaled_magnitude(volume: PhantomVolume) -> np.ndarray:
    scale = full_sampling_scale(torch.from_numpy(noise_free_kspace(volume))).numpy()
    return np.abs(volume.image) / scale[:, None, None]


def root_sum_of_squares(kspace: np.ndarray) -> np.ndarray:
    return np.linalg.norm(ifft2(torch.from_numpy(kspace)).numpy(), axis=1)


def small_kspace() -> np.ndarray:
    generator = np.random.default_rng(3)
    return (generator.standard_normal((2, 3, 12, 10)) + 1j * generator.standard_normal((2, 3, 12, 10))).astype(
        np.complex64
    )


@pytest.fixture(scope="module")
def volume() -> PhantomVolume:
    return draw(0)


@pytest.fixture(scope="module")
def volumes() -> list[PhantomVolume]:
    return [draw(seed, num_slices=1) for seed in range(100, 110)]


# ---- The volume


def test_shapes_and_types(volume):
    assert volume.image.shape == (2, 64, 64)
    assert volume.sensitivity_map.shape == (4, 64, 64)
    assert volume.kspace.shape == (2, 4, 64, 64)
    assert {volume.image.dtype, volume.sensitivity_map.dtype, volume.kspace.dtype} == {np.dtype(np.complex64)}


def test_a_seed_draws_the_same_bytes_and_leaves_the_global_generator_alone(volume):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global generator is what the test watches
    assert draw(0).kspace.tobytes() == volume.kspace.tobytes()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_another_seed_draws_another_head(volume):
    assert not np.allclose(
        np.abs(draw(1).image) / np.abs(draw(1).image).max(), np.abs(volume.image) / np.abs(volume.image).max()
    )


def test_noise_has_the_stated_standard_deviation_per_real_component(volume):
    noise = (volume.kspace - noise_free_kspace(volume)).view(np.float32).ravel()
    scale = float(full_sampling_scale(torch.from_numpy(noise_free_kspace(volume))).median())
    assert volume.noise_std == pytest.approx(0.007 * scale, rel=1e-5)
    # The sample deviation of n normal numbers is off by 1/√(2n), relatively; the sample mean by σ/√n.
    assert noise.std() == pytest.approx(volume.noise_std, rel=5 / np.sqrt(2 * noise.size))
    assert abs(noise.mean()) < 5 * volume.noise_std / np.sqrt(noise.size)


def test_without_noise_the_kspace_is_the_transform_of_the_coil_images():
    clean = draw(5, noise_std=0.0)
    np.testing.assert_allclose(clean.kspace, noise_free_kspace(clean), rtol=0, atol=1e-6 * np.abs(clean.kspace).max())
    assert clean.noise_std == 0.0


def test_coil_maps_have_root_sum_of_squares_one(volume):
    np.testing.assert_allclose(np.linalg.norm(volume.sensitivity_map, axis=0), 1.0, atol=1e-5)


def test_undisturbed_coils_are_those_of_sigpy():
    maps = birdcage_maps(2 * np.pi * np.arange(6) / 6, np.full(6, 1.7), 40)
    np.testing.assert_allclose(
        maps / np.linalg.norm(maps, axis=0), sigpy.mri.birdcage_maps((6, 40, 40), r=1.7), atol=1e-6
    )


def test_one_coil_is_enough():
    assert draw(2, num_slices=1, size=32, num_coils=1).kspace.shape == (1, 1, 32, 32)


def test_scaled_magnitudes_lie_about_zero_to_one(volumes):
    percentiles = np.array([np.percentile(scaled_magnitude(volume), 99.5) for volume in volumes])
    assert percentiles.min() > 0.5
    assert percentiles.max() < 1.5


def test_the_head_lies_inside_the_field_of_view_and_the_air_is_dark(volumes):
    for volume in volumes:
        magnitude = scaled_magnitude(volume)[0]
        assert max(magnitude[[0, -1]].max(), magnitude[:, [0, -1]].max()) < 0.01
        head = magnitude > 0.05
        extents = [np.ptp(np.flatnonzero(head.any(axis=axis))) + 1 for axis in range(2)]
        assert 0.6 < max(extents) / 64 < 1.0


def test_fluid_is_brighter_than_grey_and_grey_than_white():
    for seed in range(20):
        appearance = Appearance(np.random.default_rng([seed, 0]))
        assert appearance.fluid > appearance.grey > appearance.white > appearance.bone


def test_a_generator_draws_the_same_head_at_every_size():
    coarse, fine = draw(3, num_slices=1, num_coils=2), draw(3, num_slices=1, size=128, num_coils=2)
    averaged = np.abs(fine.image).reshape(1, 64, 2, 64, 2).mean(axis=(2, 4))
    # Both average samples of one anatomy over the same pixels; only the number of samples per pixel differs.
    error = np.linalg.norm(averaged - np.abs(coarse.image)) / np.linalg.norm(averaged)
    assert error < 0.03
    # A wide tolerance: the scale's disc is fixed in cycles per pixel, so it holds more of the head at the finer matrix.
    ratio = np.percentile(scaled_magnitude(coarse), 99) / np.percentile(scaled_magnitude(fine), 99)
    assert 0.85 < ratio < 1.15


def test_random_fields_have_mean_zero_and_variance_one():
    field = SmoothField(np.random.default_rng(0), 6.0)
    side = np.linspace(-150.0, 150.0, 200, dtype=np.float32)
    values = np.stack([field.at((depth, side, side)) for depth in np.linspace(-40, 40, 7)])
    # About 15·50·50 independent knots: the mean is good to 0.005, the variance to 0.01; ten times that is allowed.
    assert abs(values.mean()) < 0.05
    assert values.var() == pytest.approx(1.0, abs=0.1)


# ---- The files


def test_a_volume_does_not_depend_on_how_many_are_written(tmp_path, volume):
    written = write_phantoms(tmp_path / "new" / "folder", num_volumes=2, num_slices=2, size=64, num_coils=4, seed=0)
    assert [path.name for path in written] == ["phantom_000_000.h5", "phantom_000_001.h5"]
    with h5py.File(written[0]) as first, h5py.File(written[1]) as second:
        assert first["kspace"][()].tobytes() == volume.kspace.tobytes()
        assert second["kspace"][()].tobytes() != volume.kspace.tobytes()
        np.testing.assert_array_equal(first["phantom_image"], volume.image)
        np.testing.assert_array_equal(first["phantom_sensitivity_map"], volume.sensitivity_map)
        np.testing.assert_allclose(first["reconstruction_rss"], root_sum_of_squares(volume.kspace), rtol=1e-6)
        assert first.attrs["max"] == pytest.approx(first["reconstruction_rss"][()].max())
        assert first.attrs["norm"] == pytest.approx(np.linalg.norm(first["reconstruction_rss"]), rel=1e-5)
        assert "phantom" in first.attrs["synthetic"]
        assert (first.attrs["seed"], first.attrs["volume"], first.attrs["noise_std"]) == (0, 0, 0.007)
        assert first.attrs["kspace_noise_std"] == pytest.approx(volume.noise_std)
        assert first.attrs["patient_id"] == "phantom_000_000"
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [path.name for path in written]


def test_direct_reads_the_file(tmp_path, volume):
    import direct.environment  # noqa: F401 - DIRECT's datasets cannot be imported before it
    from direct.data.datasets import FastMRIDataset

    write_phantoms(tmp_path, num_volumes=1, num_slices=2, size=64, num_coils=4, seed=0)
    dataset = FastMRIDataset(data_root=tmp_path)
    assert len(dataset) == 2
    sample = dataset[1]
    assert sample["kspace"].dtype == np.complex64
    # Equal to the last column: nothing was taken for padding and zeroed.
    np.testing.assert_array_equal(sample["kspace"], volume.kspace[1])
    assert (sample["padding_left"], sample["padding_right"]) == (0, 64)
    assert sample["reconstruction_size"] == (64, 64, 1)
    assert sample["encoding_size"] == (64, 64, 1)
    assert sample["scaling_factor"] == pytest.approx(root_sum_of_squares(volume.kspace).max(), rel=1e-6)
    assert set(sample) == {
        "kspace",
        "filename",
        "slice_no",
        "scaling_factor",
        "padding_left",
        "padding_right",
        "encoding_size",
        "reconstruction_size",
    }


def test_direct_reads_odd_and_oblong_matrices_without_padding(tmp_path):
    import direct.environment  # noqa: F401 - DIRECT's datasets cannot be imported before it
    from direct.data.datasets import FastMRIDataset

    kspace = small_kspace()[..., :9]
    write_fastmri_volume(tmp_path / "odd.h5", kspace)
    np.testing.assert_array_equal(FastMRIDataset(data_root=tmp_path)[0]["kspace"], kspace[0])


def test_an_interrupted_write_leaves_no_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    kept = tmp_path / "kept.h5"
    write_fastmri_volume(kept, small_kspace())
    old = kept.read_bytes()

    def write_half_then_stop(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", write_half_then_stop)
    for path in (kept, tmp_path / "new.h5"):
        with pytest.raises(KeyboardInterrupt):
            write_fastmri_volume(path, 2 * small_kspace())
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_bytes() == old


def test_attributes_of_the_caller_win(tmp_path):
    path = tmp_path / "volume.h5"
    write_fastmri_volume(path, small_kspace(), attributes={"acquisition": "AXT2", "field": 3.0})
    with h5py.File(path) as file:
        assert (file.attrs["acquisition"], file.attrs["field"], file.attrs["patient_id"]) == ("AXT2", 3.0, "volume")


# ---- Bad input


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("num_volumes", 0, ">= 1"),
        ("num_slices", 0, ">= 1"),
        ("size", 31, ">= 32"),
        ("num_coils", 0, ">= 1"),
        ("seed", -1, ">= 0"),
        ("noise_std", -0.1, ">= 0"),
        ("noise_std", float("nan"), ">= 0"),
        ("prefix", "../up", "file name"),
    ],
)
def test_bad_input_is_named_in_one_line_and_writes_nothing(tmp_path, name, value, allowed):
    good = {"num_volumes": 1, "num_slices": 1, "size": 32, "num_coils": 1, "seed": 0, "noise_std": 0.0, "prefix": "a"}
    with pytest.raises(DeepenError, match=name) as error:
        write_phantoms(tmp_path / "out", **{**good, name: value})
    assert str(value) in str(error.value)
    assert allowed in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DeepenError, match=r"out.*a file"):
        write_phantoms(tmp_path / "out", num_volumes=1, num_slices=1, size=32, num_coils=1, seed=0)


@pytest.mark.parametrize(
    "kspace",
    [
        np.zeros((3, 4, 4), np.complex64),
        np.zeros((1, 1, 4, 4), np.float32),
        np.full((1, 1, 4, 4), np.nan, np.complex64),
    ],
    ids=["three dimensions", "real", "not finite"],
)
def test_a_volume_that_is_not_kspace_is_refused(tmp_path, kspace):
    with pytest.raises(DeepenError, match="kspace"):
        write_fastmri_volume(tmp_path / "bad.h5", kspace)
    assert list(tmp_path.iterdir()) == []


def test_missing_nilearn_is_an_instruction(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    monkeypatch.setattr(head, "load_templates", anatomy.Templates)
    with pytest.raises(DeepenError, match=r"pip install 'direct-deepen\[demo\]'"):
        write_phantoms(tmp_path / "out", num_volumes=1, num_slices=1, size=32, num_coils=1, seed=0)
    assert not (tmp_path / "out").exists()


# ---- The command


def test_the_same_seed_writes_the_same_files_and_another_seed_others(tmp_path):
    def written(folder, seed):
        options = f"--volumes 2 --slices 1 --size 32 --coils 2 --seed {seed} --prefix head"
        assert main(["phantom", str(tmp_path / folder), *options.split()]) == 0
        return sorted((tmp_path / folder).iterdir())

    first, again, other = written("first", 4), written("again", 4), written("other", 5)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    # All volumes differ, those of a set as well as those of two sets.
    kspaces = set()
    for path in (*first, *other):
        with h5py.File(path) as file:
            kspaces.add(file["kspace"][()].tobytes())
    assert len(kspaces) == 4


def test_the_command_writes_the_volumes_it_is_asked_for(tmp_path: Path):
    options = ["--volumes", "1", "--slices", "3", "--size", "48", "--coils", "2", "--seed", "7"]
    assert build_parser().parse_args(["phantom", "out", *options]).noise_std == DEFAULT_NOISE_STD
    assert main(["phantom", str(tmp_path), *options, "--noise-std", "0.01", "--prefix", "head"]) == 0
    with h5py.File(tmp_path / "head_007_000.h5") as file:
        assert file["kspace"].shape == (3, 2, 48, 48)
        assert file.attrs["noise_std"] == 0.01
