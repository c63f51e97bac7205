"""The output folder of ``direct predict`` as a method of a study."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_direct
import torch
import yaml
from direct.data.transforms import center_crop
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from direct_deepen.evaluation.benchmark import reconstruct_test_data
from direct_deepen.evaluation.methods import predicted
from direct_deepen.evaluation.study import load_study
from direct_deepen.evaluation.tables import read_results
from direct_deepen.posterior.posterior_file import PosteriorWriter, posterior_path


@pytest.fixture
def scored(tmp_path, study, monkeypatch):
    """``scored(folder)``: the rows of a prediction by method and slice."""
    monkeypatch.chdir(study.folder)

    def score(folder, **changes):
        methods = {"deepen": {"predictions": str(folder), "checkpoint": str(study.checkpoint)}}
        found = load_study(study.write(tmp_path / "study.yaml", methods=methods, **changes))
        with tiny_direct.process_as_before():
            reconstruct_test_data(found, found.runs()[0], tmp_path / "run")
        return read_results([tmp_path / "run" / "rows.csv"]).set_index(["method", "case"])

    return score


def rewrite(folder, change):
    """Replace the arrays of every posterior file by what ``change`` makes of them."""
    for path in folder.glob("*.posterior.h5"):
        with h5py.File(path, "r+") as file:
            arrays = change({name: dataset[()] for name, dataset in file.items()})
            for name in list(file):
                del file[name]
            for name, array in arrays.items():
                file[name] = array


def test_map_and_mean_are_scored_as_scikit_image_does_with_what_the_file_says_of_their_cost(study, scored):
    rows = scored(study.prediction)
    for case in study.cases(study.test):
        reference = case.problem.to_data_units(case.reference)[0].abs().numpy()
        peak = reference.max()
        with h5py.File(posterior_path(study.prediction, Path(case.volume))) as file:
            arrays = {name: dataset[case.slice_number] for name, dataset in file.items()}
        for method, kind, part in (("deepen_map", "map", "map"), ("deepen_mmse", "mean", "posterior")):
            row, image = rows.loc[method, f"{case.volume}#{case.slice_number}"], np.abs(arrays[kind])
            # The scale is divided out and multiplied back in single precision; six digits are written.
            assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=peak), rel=1e-4)
            ssim = structural_similarity(reference.astype(float), image.astype(float), data_range=float(peak))
            assert row["ssim"] == pytest.approx(ssim, rel=1e-4)
            assert row["nmse"] == pytest.approx(((image - reference) ** 2).sum() / (reference**2).sum(), rel=1e-3)
            for name in ("seconds", "gradient_evaluations"):
                assert row[name] == pytest.approx(arrays[f"{part}_{name}"], rel=1e-4)
            assert row["parameters"] == 298
            assert np.isnan(row["peak_memory_mb"])
        # Three chains, ten states of each.
        assert row["num_samples"] == 30
        assert row["sample_evaluations"] == pytest.approx(arrays["posterior_gradient_evaluations"] / 3, rel=1e-4)
        std = arrays["std"].mean() / float(case.problem.scale)
        assert row["std_everywhere"] == pytest.approx(std, rel=1e-4)
    assert rows.loc["deepen_map"]["num_samples"].isna().all()


def test_what_has_no_posterior_file_is_what_direct_wrote(study, scored, copied):
    for path in copied.glob("*.posterior.h5"):
        path.unlink()
    with_file, without = scored(study.prediction), scored(copied)
    assert set(without.index.get_level_values("method")) == {"deepen"}
    # Here it wrote the mean.
    np.testing.assert_allclose(without.loc["deepen"]["psnr"], with_file.loc["deepen_mmse"]["psnr"], rtol=1e-4)
    assert without["seconds"].isna().all()


def alone(arrays):
    return {name: array for name, array in arrays.items() if name.startswith("map") or name == "scale"}


def of_another_system(arrays):
    return {"image": arrays["map"], "seconds": arrays["map_seconds"], "scale": arrays["scale"]}


@pytest.mark.parametrize(("change", "evaluates"), [(alone, True), (of_another_system, False)])
def test_one_image_gives_one_row_by_the_name_of_the_method(study, scored, copied, change, evaluates):
    expected = scored(study.prediction).loc["deepen_map"]
    rewrite(copied, change)
    found = scored(copied)
    assert set(found.index.get_level_values("method")) == {"deepen"}
    columns = ["psnr", "ssim", "nmse", "seconds"]
    np.testing.assert_allclose(found.loc["deepen"][columns], expected[columns], rtol=1e-5)
    assert ((found["gradient_evaluations"] > 0) == evaluates).all()


def test_the_reference_itself_has_no_error_whatever_direct_divides_the_data_by(tmp_path, study, scored):
    folder = tmp_path / "perfect"
    folder.mkdir()
    for volume in ("a.h5", "b.h5"):
        mine = [case for case in study.cases(study.test) if case.volume == volume]
        with h5py.File(folder / volume, "w") as file:
            images = [case.problem.to_data_units(case.reference).abs() for case in mine]
            file["reconstruction"] = torch.cat(images).numpy()
            file["sampling_mask"] = torch.cat([case.problem.A.sampling_mask[:, 0] for case in mine]).numpy()
    config = tiny_direct.with_transforms(tiny_direct.configuration(), {"normalization.scaling_key": "masked_kspace"})
    path = tiny_direct.write_configuration(tmp_path / "scaled.yaml", config)
    for problem in (study.configuration, path):
        rows = scored(folder, problems={"2d4x": str(problem)})
        # The rounding of single precision, seven digits.
        assert (rows["psnr"] > 120).all()
        assert (rows["nmse"] < 1e-10).all()


@pytest.mark.parametrize("with_posterior", [True, False])
@pytest.mark.parametrize("problem_of", ["cropped", "whole"])
def test_where_images_are_cropped_references_are_too(tmp_path, study, scored, copied, problem_of, with_posterior):
    # Files that say that of 32×32 samples 16×24 are to be seen.
    volumes = tiny_direct.write_volumes(tmp_path / "test", ["b", "a"], seed=20)
    for path in volumes.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            header = file["ismrmrd_header"][()].decode()
            parts = header.split("<reconSpace>")
            parts[1] = parts[1].replace("<x>32</x>", "<x>16</x>", 1).replace("<y>32</y>", "<y>24</y>", 1)
            del file["ismrmrd_header"]
            file["ismrmrd_header"] = "<reconSpace>".join(parts).encode()
    config = yaml.safe_load(study.configuration.read_text())
    uncropped = tiny_direct.with_transforms(config, {"cropping.crop": None})
    problem = {}
    for name, crop in (("whole", None), ("cropped", "header")):
        config = tiny_direct.changed(uncropped, {"inference.crop": crop})
        problem[name] = str(tiny_direct.write_configuration(tmp_path / f"{name}.yaml", config))
    for path in copied.glob("?.h5"):
        with h5py.File(path, "r+") as file:
            image = center_crop(torch.from_numpy(file["reconstruction"][()]), (16, 24))
            del file["reconstruction"]
            file["reconstruction"] = image.numpy()
    changes = {"test": str(volumes)}
    # The masks of the prediction are those of another path.
    for path in copied.glob("?.h5"):
        with h5py.File(path, "r+") as file:
            del file["sampling_mask"]
    scored_folder = copied if with_posterior else shutil.copytree(copied, tmp_path / "without")
    for path in () if with_posterior else scored_folder.glob("*.posterior.h5"):
        path.unlink()
    rows = scored(scored_folder, problems={"2d4x": problem[problem_of]}, **changes)
    with h5py.File(tmp_path / "references.h5") as file:
        assert {file[label].shape for label in file} == {(16, 24) if problem_of == "cropped" else (32, 32)}
    for case in study.cases(volumes, Path(problem["whole"])):
        with h5py.File(posterior_path(copied, Path(case.volume))) as file:
            image = np.abs(file["mean"][case.slice_number])[8:24, 4:28]
        reference = case.problem.to_data_units(case.reference)[0].abs().numpy()[8:24, 4:28]
        expected = peak_signal_noise_ratio(reference, image, data_range=reference.max())
        method = "deepen_mmse" if with_posterior else "deepen"
        found = rows.loc[method, f"{case.volume}#{case.slice_number}"]
        assert found["psnr"] == pytest.approx(expected, rel=1e-4)


# ---- What does not belong to the data


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_folder(copied):
    shutil.rmtree(copied)
    return [str(copied), "direct predict"]


def no_volume(copied):
    (copied / "b.h5").unlink()
    return [str(copied / "b.h5")]


def damaged_volume(copied):
    truncate(copied / "b.h5")
    return [str(copied / "b.h5")]


def damaged_posterior(copied):
    truncate(copied / "b.posterior.h5")
    return [str(copied / "b.posterior.h5")]


def no_reconstruction(copied):
    with h5py.File(copied / "b.h5", "r+") as file:
        del file["reconstruction"]
    return [str(copied / "b.h5"), "reconstruction"]


def fewer_slices(copied):
    with h5py.File(copied / "b.h5", "r+") as file:
        images = file["reconstruction"][:1]
        del file["reconstruction"]
        file["reconstruction"] = images
    return [str(copied / "b.h5"), "(1, 32, 32)", "2 or more"]


def other_size(copied):
    with h5py.File(copied / "b.h5", "r+") as file:
        images = file["reconstruction"][:, 2:]
        del file["reconstruction"]
        file["reconstruction"] = images
    return [str(copied / "b.h5"), "(2, 30, 32)"]


def other_mask(copied):
    with h5py.File(copied / "b.h5", "r+") as file:
        file["sampling_mask"][...] = np.roll(file["sampling_mask"], 1, axis=-1)
    return [str(copied / "b.h5"), "sampling mask"]


def other_mask_without_posterior(copied):
    (copied / "b.posterior.h5").unlink()
    return other_mask(copied)


@pytest.mark.parametrize(
    "damage",
    [
        no_folder,
        no_volume,
        damaged_volume,
        damaged_posterior,
        no_reconstruction,
        fewer_slices,
        other_size,
        other_mask,
        other_mask_without_posterior,
    ],
)
def test_what_does_not_belong_to_the_data_is_refused(tmp_path, scored, copied, one_line_error, damage):
    words = damage(copied)
    with one_line_error(*words):
        scored(copied)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [None, b"no checkpoint", {"optimizer": {}}])
def test_missing_or_damaged_weights_are_named(tmp_path, study, one_line_error, content):
    path = tmp_path / "model_1.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with one_line_error(str(path), "checkpoint"):
        predicted(study.prediction, path)


# ---- The posterior file


def test_a_volume_is_written_when_its_last_slice_comes_in_the_order_of_slices(tmp_path):
    volume = tmp_path / "data" / "a.h5"
    writer = PosteriorWriter(tmp_path / "output", {volume: 3}, {volume: {"noise_std": 0.01}})
    for number in (2, 0):
        assert writer.add(volume, number, {"map": np.full((2, 2), number), "cost": np.float64(number)}) is None
        assert not list(tmp_path.rglob("*.h5"))
    path = writer.add(volume, 1, {"map": np.full((2, 2), 1), "cost": np.float64(1)})
    assert path == posterior_path(tmp_path / "output", volume) == tmp_path / "output" / "a.posterior.h5"
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["map"][:, 0, 0], [0, 1, 2])
        np.testing.assert_array_equal(file["cost"], [0, 1, 2])
        assert file.attrs["noise_std"] == 0.01
    assert [entry.name for entry in (tmp_path / "output").iterdir()] == ["a.posterior.h5"]


def test_a_slice_of_an_unknown_volume_is_refused(tmp_path, one_line_error):
    writer = PosteriorWriter(tmp_path, {tmp_path / "a.h5": 1}, {})
    with one_line_error("b.h5", "not a volume"):
        writer.add(tmp_path / "b.h5", 0, {})
