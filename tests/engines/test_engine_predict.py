"""Prediction through DIRECT's own command: DIRECT's volume, and the posterior file beside it."""

import json
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import recorded
import tiny_direct
import torch
from omegaconf import OmegaConf
from terminals import as_standard_error

import direct_deepen
from direct_deepen.data.batch import problem_from_batch
from direct_deepen.data.fastmri_file import write_fastmri_volume
from direct_deepen.data.volumes import Volumes
from direct_deepen.engines.checkpoints import digest_of, weights_of
from direct_deepen.engines.commands import batch_in_bar, torch_seed
from direct_deepen.engines.settings import system_of
from direct_deepen.physics import sense

IMAGE = (tiny_direct.SLICES, tiny_direct.SIZE, tiny_direct.SIZE)
NUMBER = (tiny_direct.SLICES,)

FIGURES = {
    "outside_band": (NUMBER, "f"),
    "brightness": (NUMBER, "f"),
    "departure": (NUMBER, "f"),
    "residual": (NUMBER, "f"),
    "energy_per_pixel": (NUMBER, "f"),
    "unlike_training": (NUMBER, "f"),
    "unexplained": (NUMBER, "f"),
    "noise_above": (NUMBER, "f"),
    "noise_below": (NUMBER, "f"),
    "spike": (NUMBER, "f"),
    "off_centre": (NUMBER, "f"),
}
"""Of the reconstruction that was asked for."""

MAP_ARRAYS = {
    "map": (IMAGE, "c"),
    "slice_number": (NUMBER, "i"),
    "scale": (NUMBER, "f"),
    "cost": (NUMBER, "f"),
    "converged": (NUMBER, "b"),
    "map_gradient_evaluations": (NUMBER, "f"),
    "map_seconds": (NUMBER, "f"),
    **FIGURES,
}
MEAN_ARRAYS = MAP_ARRAYS | {
    "mean": (IMAGE, "c"),
    "std": (IMAGE, "f"),
    "std_complex": (IMAGE, "f"),
    "quantiles": ((IMAGE[0], 5, *IMAGE[1:]), "f"),
    "split_r_hat": (IMAGE, "f"),
    "effective_sample_size": (IMAGE, "f"),
    "step_size": (NUMBER, "f"),
    "curvature": (NUMBER, "f"),
    "posterior_gradient_evaluations": (NUMBER, "f"),
    "posterior_seconds": (NUMBER, "f"),
}
"""Shape and kind of everything a posterior file holds."""

IN_DATA_UNITS = ("map", "mean", "std", "std_complex", "quantiles", "scale")


def arrays_of(output, volume="test", kind=".posterior"):
    with h5py.File(output / f"{volume}{kind}.h5") as file:
        return {name: dataset[()] for name, dataset in file.items() if not dataset.is_scale}


def timeless(arrays):
    return {name: array for name, array in arrays.items() if not name.endswith("seconds")}


def assert_equal_arrays(found, expected):
    found, expected = timeless(found), timeless(expected)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def assert_close_arrays(found, expected, tolerance):
    found, expected = timeless(found), timeless(expected)
    assert set(found) == set(expected)
    for name in expected:
        atol = tolerance * np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol, err_msg=name)


# ---- What is written


def test_every_volume_gets_its_reconstruction_and_its_posterior_file_and_nothing_is_left_half_written(
    tmp_path, map_config, volumes, checkpoint
):
    output = tiny_direct.direct_predict(tmp_path, map_config, volumes, checkpoint)
    files = {path.name for path in output.iterdir() if ".h5" in path.name}
    assert files == {"a.h5", "a.posterior.h5", "b.h5", "b.posterior.h5"}


def test_a_posterior_file_holds_what_is_documented(map_prediction, mean_prediction):
    for output, documented in ((map_prediction, MAP_ARRAYS), (mean_prediction, MEAN_ARRAYS)):
        arrays = arrays_of(output)
        assert {name: (array.shape, array.dtype.kind) for name, array in arrays.items()} == documented
        for name, array in arrays.items():
            assert np.isfinite(array).all(), name


def test_the_attributes_say_how_the_file_was_made(mean_prediction, mean_config, checkpoint):
    with h5py.File(mean_prediction / "test.posterior.h5") as file:
        attributes = dict(file.attrs)
    assert attributes["direct_deepen_version"] == direct_deepen.__version__
    assert attributes["torch_version"] == torch.__version__
    assert attributes["noise_std"] == 0.01
    # torch's seed, as no command runs here; DIRECT makes it of the seed 1.
    assert attributes["seed"] == torch_seed(1)
    assert attributes["device"] == "cpu"
    assert attributes["weights_sha256"] == digest_of({f"model.{k}": v for k, v in weights_of(checkpoint).items()})
    assert attributes["data"].startswith(f"{Path('volume') / 'test.h5'}, ")
    assert attributes["direct_version"] == version("direct-recon")
    inference = mean_config["model"]["inference"]
    assert not attributes["averaged_noise"]  # its samples are wider than the posterior, and the file says so
    assert {key: attributes[key] for key in ("num_samples", "num_steps", "keep")} == {
        key: inference[key] for key in ("num_samples", "num_steps", "keep")
    }
    assert attributes["quantile_probabilities"].tolist() == [0.05, 0.25, 0.5, 0.75, 0.95]
    # What the text says of units is what the tests of units find.
    assert set(IN_DATA_UNITS) <= set(attributes["units"].partition(":")[0].split(", "))
    assert "`scale`" in attributes["intensity_scale"]
    section = OmegaConf.to_container(OmegaConf.create(attributes["configuration"]))
    assert section.items() >= mean_config["model"].items()
    assert system_of(section) == system_of(mean_config["model"])


def test_a_file_without_samples_says_nothing_of_them(map_prediction):
    with h5py.File(map_prediction / "test.posterior.h5") as file:
        assert not {"num_samples", "num_steps", "keep", "quantile_probabilities"} & set(file.attrs)


def test_moments_and_quantiles_are_those_of_the_samples_that_are_saved_on_request(
    tmp_path, mean_config, volume, checkpoint, mean_prediction
):
    changes = {"model.inference.save_samples": True, "model.inference.quantiles": [0.1, 0.8]}
    config = tiny_direct.changed(mean_config, changes)
    # DIRECT divides the data by a factor of its own, which must not be left in what is written.
    config = tiny_direct.with_transforms(config, {"normalization.scaling_key": "masked_kspace"})
    output = tiny_direct.direct_predict(tmp_path, config, volume, checkpoint)
    with h5py.File(output / "test.posterior.h5") as file:
        assert file.attrs["quantile_probabilities"].tolist() == [0.1, 0.8]
    arrays = arrays_of(output)
    samples = arrays["samples"]
    inference = config["model"]["inference"]
    assert samples.shape == (IMAGE[0], inference["num_samples"] * inference["keep"], *IMAGE[1:])
    peak = np.abs(samples).max()
    real = np.real(samples * np.exp(-1j * np.angle(arrays["mean"]))[:, None])
    quantiles = np.quantile(real, [0.1, 0.8], axis=1)
    # Single precision; the phase of the mean is known less well where that is small.
    np.testing.assert_allclose(arrays["mean"], samples.mean(axis=1), rtol=0, atol=1e-6 * peak)
    np.testing.assert_allclose(arrays["std"], real.std(axis=1, ddof=1), rtol=0, atol=1e-5 * peak)
    np.testing.assert_allclose(arrays["quantiles"], np.moveaxis(quantiles, 0, 1), rtol=0, atol=1e-5 * peak)
    # The units are those of the file: the mean is that of a prediction without such a factor, but for rounding.
    np.testing.assert_allclose(arrays["mean"], arrays_of(mean_prediction)["mean"], rtol=0, atol=3e-3 * peak)


def test_no_quantiles_are_written_if_none_are_asked_for(tmp_path, mean_config, volume, checkpoint):
    config = tiny_direct.changed(mean_config, {"model.inference.quantiles": []})
    output = tiny_direct.direct_predict(tmp_path, config, volume, checkpoint)
    assert set(arrays_of(output)) == set(MEAN_ARRAYS) - {"quantiles"}


def test_the_reconstruction_is_the_magnitude_of_the_map_image_or_of_the_posterior_mean(map_prediction, mean_prediction):
    for output, estimate in ((map_prediction, "map"), (mean_prediction, "mean")):
        image = np.abs(arrays_of(output)[estimate])
        np.testing.assert_allclose(
            arrays_of(output, kind="")["reconstruction"], image, rtol=1e-6, atol=1e-6 * image.max()
        )


def test_the_mask_is_written_beside_the_reconstruction(map_prediction):
    masks = arrays_of(map_prediction, kind="")["sampling_mask"]
    assert masks.shape == IMAGE
    assert set(np.unique(masks)) == {0.0, 1.0}
    # Four times undersampled, as the configuration says, the same mask for all slices of a volume.
    assert masks.mean() == pytest.approx(0.25, rel=0.01)
    np.testing.assert_array_equal(masks[0], masks[1])


def test_the_map_image_is_the_same_with_and_without_a_posterior(map_prediction, mean_prediction):
    for name in MAP_ARRAYS.keys() - FIGURES.keys():
        if name != "map_seconds":
            np.testing.assert_array_equal(arrays_of(map_prediction)[name], arrays_of(mean_prediction)[name])


def test_direct_scores_the_reconstruction_with_its_own_metrics(map_prediction):
    (scores,) = json.loads((map_prediction / "metrics_inference.json").read_text()).values()
    # Noise, another scale or another slice would have an error of the size of the image.
    assert scores["fastmri_nmse_metric"] < 0.05


def test_figures_mean_what_they_say(mean_prediction, mean_config):
    arrays, inference = arrays_of(mean_prediction), mean_config["model"]["inference"]
    assert (arrays["scale"] > 0).all()
    assert (arrays["cost"] > 0).all()
    assert ((arrays["step_size"] > 0) & (arrays["step_size"] <= 1)).all()
    assert (arrays["curvature"] > 0).all()
    assert (arrays["std"] > 0).all()
    # The magnitude varies at most as much as both components together.
    assert (arrays["std"] <= 2**0.5 * arrays["std_complex"] * (1 + 1e-4)).all()
    assert (arrays["map_gradient_evaluations"] >= 1).all()
    assert (arrays["map_seconds"] > 0).all()
    # Every chain: its steps, its start, and one for the first step size.
    expected = inference["num_samples"] * (inference["num_steps"] + 2)
    np.testing.assert_array_equal(arrays["posterior_gradient_evaluations"], expected)


# ---- Units


@pytest.mark.parametrize("kind", ["map", "mean"])
def test_results_are_in_the_units_of_the_file_whatever_direct_divides_by(tmp_path, volume, checkpoint, request, kind):
    config, expected = (request.getfixturevalue(f"{kind}_{name}") for name in ("config", "prediction"))
    config = tiny_direct.with_transforms(config, {"normalization.scaling_key": "masked_kspace"})
    output = tiny_direct.direct_predict(tmp_path, config, volume, checkpoint)
    # Dividing by DIRECT's factor rounds; the iterations carry that along.
    assert_close_arrays(arrays_of(output), arrays_of(expected), 3e-3)
    assert_close_arrays(arrays_of(output, kind=""), arrays_of(expected, kind=""), 3e-3)


def test_data_in_other_units_give_the_same_posterior_in_other_units(tmp_path, mean_config, checkpoint, volume):
    data = tmp_path / "data"
    shutil.copytree(volume, data)
    before = arrays_of(tiny_direct.direct_predict(tmp_path / "before", mean_config, data, checkpoint))
    # The files keep their place, because the mask follows from it. A power of two does not change a digit.
    unit = 2.0**20
    for path in data.glob("*.h5"):
        with h5py.File(path) as file:
            kspace = file["kspace"][()]
        write_fastmri_volume(path, kspace * np.complex64(unit))
    after = arrays_of(tiny_direct.direct_predict(tmp_path / "after", mean_config, data, checkpoint))
    expected = {name: array * unit if name in IN_DATA_UNITS else array for name, array in before.items()}
    assert_close_arrays(after, expected, 3e-3)


# ---- Progress


def test_a_terminal_shows_volume_slice_and_solver_and_the_log_above_them(
    tmp_path, mean_config, volumes, checkpoint, monkeypatch
):
    terminal = as_standard_error(monkeypatch)
    monkeypatch.setattr(sys, "stdout", terminal)
    tiny_direct.direct_predict(tmp_path, mean_config, volumes, checkpoint)
    text = terminal.getvalue()
    # The batch has all slices of a volume.
    for words in (r"predict: .*\| 2/4 .*volume 2 of 2: [ab], slices 1 to 2", "MAP: ", "Langevin: "):
        assert re.search(words, text), words
    # The log has lines of its own: bars are taken away before.
    lines = [line for line in re.split("[\r\n]", text) if "Wrote posterior" in line]
    assert len(lines) == 2
    assert all(line.startswith("[") for line in lines)


# ---- What a prediction depends on


def test_the_bar_names_volume_and_slices_of_a_batch():
    shown, done = [], []
    bar = SimpleNamespace(set_postfix_str=shown.append, update=done.append)
    for names in ([("a.h5", 0)], [("b.h5", 2), ("b.h5", 3), ("b.h5", 4)]):
        with batch_in_bar(bar, [Path("a.h5"), Path("b.h5")], names):
            assert len(shown) == len(done) + 1
    assert shown == ["volume 1 of 2: a, slice 1", "volume 2 of 2: b, slices 3 to 5"]
    assert done == [1, 3]


def test_the_same_seed_predicts_the_same_and_another_seed_other_samples_but_the_same_map(
    tmp_path, mean_config, volume, checkpoint, mean_prediction
):
    again = tiny_direct.direct_predict(tmp_path / "again", mean_config, volume, checkpoint)
    other = tiny_direct.direct_predict(tmp_path / "other", mean_config, volume, checkpoint, seed=2)
    assert_equal_arrays(arrays_of(again), arrays_of(mean_prediction))
    np.testing.assert_array_equal(arrays_of(other)["map"], arrays_of(mean_prediction)["map"])
    assert not np.array_equal(arrays_of(other)["mean"], arrays_of(mean_prediction)["mean"])


def test_chains_have_convolutions_of_16_bits_on_request_and_map_has_not(
    tmp_path, mean_config, volume, checkpoint, mean_prediction
):
    config = tiny_direct.changed(mean_config, {"model.inference.convolutions": "bfloat16"})
    reduced = arrays_of(tiny_direct.direct_predict(tmp_path, config, volume, checkpoint))
    full = arrays_of(mean_prediction)
    np.testing.assert_array_equal(reduced["map"], full["map"])
    assert not np.array_equal(reduced["mean"], full["mean"])
    # The same noise drives both chains: what is left is the rounding of gradients.
    np.testing.assert_allclose(reduced["mean"], full["mean"], atol=0.1 * float(full["std"].mean()))


def test_slices_and_volumes_have_random_numbers_of_their_own(tmp_path, mean_config, checkpoint):
    # Four times the same data: any equal samples would come from equal random numbers.
    data = tmp_path / "data"
    data.mkdir()
    (kspace,) = tiny_direct.draw_kspace(0, slices=1)
    for name in ("a", "b"):
        write_fastmri_volume(data / f"{name}.h5", np.stack([kspace, kspace]))
    output = tiny_direct.direct_predict(tmp_path / "output", mean_config, data, checkpoint)
    means = [mean for volume in ("a", "b") for mean in arrays_of(output, volume)["mean"]]
    assert len({mean.tobytes() for mean in means}) == 4


def test_a_prediction_does_not_depend_on_the_batch_it_comes_in(tmp_path, mean_config, volume, checkpoint):
    def predicted(size):
        changes = {
            "inference.batch_size": size,
            "model.inference.max_iterations": 200,
            "model.inference.start": "noise",
        }
        config = tiny_direct.changed(mean_config, changes)
        return arrays_of(tiny_direct.direct_predict(tmp_path / str(size), config, volume, checkpoint))

    together, apart = predicted(2), predicted(1)
    # Evaluations of MAP are shared out over the batch.
    for arrays in (together, apart):
        assert arrays["converged"].all()
        del arrays["map_gradient_evaluations"]
    # MAP ends where a step changes the cost by less than 10⁻⁶, and near its minimum the cost is flat. Chains from there
    # would inherit that.
    np.testing.assert_allclose(apart["cost"], together["cost"], rtol=1e-4)
    np.testing.assert_allclose(apart.pop("map"), together["map"], rtol=0, atol=2e-2 * np.abs(together.pop("map")).max())
    # All else differs by the rounding of sums taken in another order.
    assert_close_arrays(apart, together, 1e-3)


def test_a_prediction_does_not_depend_on_the_folder_but_through_the_mask(
    tmp_path, mean_config, volume, checkpoint, mean_prediction, monkeypatch
):
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(volume, moved)
    original = Volumes.__getitem__

    def at_the_old_place(self, index):
        """The sample with the mask of the old place, under its new name."""
        transform, paths = self._transform, []

        def renamed(sample):
            paths.append(sample["filename"])
            return transform({**sample, "filename": sample["filename"].replace(moved.name, volume.name)})

        self._transform = renamed
        try:
            return {**original(self, index), "filename": paths[0]}
        finally:
            self._transform = transform

    elsewhere = tiny_direct.direct_predict(tmp_path / "elsewhere", mean_config, moved, checkpoint)
    monkeypatch.setattr(Volumes, "__getitem__", at_the_old_place)
    output = tiny_direct.direct_predict(tmp_path / "output", mean_config, moved, checkpoint)
    assert_equal_arrays(arrays_of(output), arrays_of(mean_prediction))
    assert not np.array_equal(
        arrays_of(elsewhere, kind="")["sampling_mask"], arrays_of(mean_prediction, kind="")["sampling_mask"]
    )


# ---- Threads


def test_solvers_get_all_cores_and_the_number_of_threads_is_restored(
    tmp_path, map_config, volume, checkpoint, monkeypatch, exit_with_one_line
):
    inside = []
    monkeypatch.setattr(tiny_direct, "CORES", [0, 1, 2])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with recorded.listening(recorded.BEFORE_BATCH, lambda _: inside.append(torch.get_num_threads())):
            tiny_direct.direct_predict(tmp_path / "good", tiny_direct.recorded(map_config), volume, checkpoint)
        assert set(inside) == {3}
        assert torch.get_num_threads() == 2
        with exit_with_one_line("checkpoint"):
            tiny_direct.direct_predict(tmp_path / "bad", map_config, volume, tmp_path / "none.pt")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- What is refused


def test_a_volume_with_a_bad_number_ends_prediction_by_its_name_and_leaves_nothing_half_written(
    tmp_path, mean_config, checkpoint, exit_with_one_line
):
    data = tiny_direct.write_volumes(tmp_path / "data", ["broken"])
    with h5py.File(data / "broken.h5", "r+") as file:
        file["kspace"][1, 0, 16, 16] = float("inf")
    output = tmp_path / "output"
    with exit_with_one_line("broken.h5", "slice 1", "masked_kspace"):
        tiny_direct.direct_predict(output, mean_config, data, checkpoint)
    assert not list(output.glob("*.h5*"))


def test_a_diverging_chain_ends_prediction_with_one_line(tmp_path, mean_config, volume, checkpoint, exit_with_one_line):
    config = tiny_direct.changed(mean_config, {"model.inference.step_size": 1e15})
    with exit_with_one_line("langevin", "step_size"):
        tiny_direct.direct_predict(tmp_path, config, volume, checkpoint)
    assert not list(tmp_path.glob("*.h5*"))


@pytest.mark.parametrize("start", ["sense", "noise", "map"])
def test_chains_start_where_the_configuration_says(batch, draw, start):
    problem = problem_from_batch(batch).select(torch.tensor([0]))
    given, evaluated = draw(1, tiny_direct.SIZE, tiny_direct.SIZE, dtype=torch.complex64), []

    class Zero(torch.nn.Module):
        def value_and_grad(self, image):
            evaluated.append(image)
            return image.real.sum(dim=(1, 2)) * 0, image * 0

    sampler = system_of({"inference": {"name": "langevin", "num_samples": 2, "keep": 1, "start": start}}).inference
    sampler.sample(problem, Zero(), torch.Generator().manual_seed(0), given)
    first, second = evaluated[0]
    if start == "map":
        assert torch.equal(first, given[0])
        assert torch.equal(second, given[0])
    else:
        # 2048 numbers: a standard error of 1.6 %.
        centre = sense(problem.A, problem.masked_kspace)[0] if start == "sense" else 0.0
        assert float(torch.view_as_real(first - centre).std()) == pytest.approx(
            0.01 if start == "sense" else 0.1, rel=0.1
        )
        assert not torch.equal(first, second)
