"""``model.prewhitening`` in DIRECT's commands: where the covariance is from, and that all commands see one problem."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_direct
import torch

from direct_deepen.data.cases import cases, inference_dataset
from direct_deepen.data.prewhitening import with_prewhitening
from direct_deepen.engines.engine import DeepenEngine
from direct_deepen.engines.settings import system_of
from direct_deepen.physics import noise_covariance, prewhitened
from direct_deepen.posterior.posterior_file import posterior_path

COILS, SIZE = 3, tiny_direct.SIZE
FACTOR = np.array([[1.0, 0, 0], [0.4j, 1, 0], [0.3, 0.2, 6]])
COVARIANCE = FACTOR @ FACTOR.conj().T


def noise_scan(seed=0, samples=2000):
    draw = np.random.default_rng(seed).standard_normal
    return (FACTOR @ (draw((COILS, samples)) + 1j * draw((COILS, samples)))).astype(np.complex64)


def write(folder, kspace, **arrays):
    tiny_direct.write_fastmri_volume(folder / "a.h5", kspace, datasets=arrays)
    return folder


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture(scope="module")
def kspace():
    clean = tiny_direct.draw_kspace(0, slices=1)
    return clean + 0.01 * noise_scan(1, SIZE * SIZE).reshape(1, COILS, SIZE, SIZE)


def config(source, **changes):
    changes = {f"model.{key.replace('__', '.')}": value for key, value in changes.items()}
    return tiny_direct.changed(tiny_direct.configuration(), {"model.prewhitening": source, **changes})


def problem_of_case(folder, settings):
    path = tiny_direct.write_configuration(folder.parent / "cases.yaml", settings)
    (case,) = cases(inference_dataset(path, folder))
    return case


def in_memory(folder, kspace):
    """The problem of k-space that was whitened before it was written."""
    (folder.parent / "whitened").mkdir()
    whitened = prewhitened(torch.from_numpy(kspace), torch.from_numpy(COVARIANCE)).numpy()
    return problem_of_case(write(folder.parent / "whitened", whitened), config(None))


@pytest.mark.parametrize("form", ["covariance in file", "noise in file", "covariance", "noise"])
def test_every_source_gives_the_problem_of_whitened_k_space(data, kspace, form):
    arrays = {"covariance in file": {"noise_covariance": COVARIANCE}, "noise in file": {"noise": noise_scan()}}
    write(data, kspace, **arrays.get(form, {}))
    source = "file"
    if form in ("covariance", "noise"):
        source = str(data.parent / "noise.npy")
        np.save(source, COVARIANCE if form == "covariance" else noise_scan())
    found, expected = problem_of_case(data, config(source)), in_memory(data, kspace)
    # Masks are seeded by the path of a file: the references are fully sampled, but for maps of another centre.
    # Of 2000 samples a coil the covariance has standard errors of 2 %.
    error = torch.linalg.vector_norm(found.reference.abs() - expected.reference.abs())
    assert float(error / torch.linalg.vector_norm(expected.reference)) < 0.05
    plain = problem_of_case(data, config(None)).reference
    assert float((plain.abs() - expected.reference.abs()).norm() / expected.reference.norm()) > 0.1


def test_corners_know_the_noisy_coil_and_maps_are_normalised(data):
    kspace = tiny_direct.draw_kspace(0, slices=1, size=64)
    noise = 0.1 * np.random.default_rng(1).standard_normal((2, 64, 64))
    kspace[0, 2] += noise[0] + 1j * noise[1]
    write(data, kspace)
    settings = tiny_direct.with_transforms(config("corners"), {"augmentation.pad": [64, 64]})
    case = problem_of_case(data, settings)
    power = case.problem.A.power
    torch.testing.assert_close(power[power > 0], torch.ones_like(power[power > 0]), rtol=0, atol=1e-3)
    plain = problem_of_case(data, tiny_direct.changed(settings, {"model.prewhitening": None}))
    share = [c.problem.A.sensitivity_map[0, 2].abs().square().mean() for c in (case, plain)]
    # Ten times the noise, a hundredth of the weight; but in the air, which noise makes the maps of, nearly the whole.
    assert share[0] < 0.3 * share[1]


def test_training_validation_and_prediction_see_the_same_whitened_k_space(data, kspace, monkeypatch, tmp_path):
    write(data, kspace, noise_covariance=COVARIANCE)
    settings = tiny_direct.changed(config("file"), {"training.validation_steps": 4})
    settings["validation"]["datasets"] = [settings["training"]["datasets"][0]]
    seen = []
    problem = DeepenEngine._problem

    def recorded(engine, batch):
        seen.append(problem(engine, batch))
        return seen[-1]

    monkeypatch.setattr(DeepenEngine, "_problem", recorded)
    run = tiny_direct.direct_train(tmp_path / "runs", settings, data)
    trained = len(seen)
    output = tiny_direct.direct_predict(tmp_path / "out", settings, data, run / "model_7.pt")
    # Eight iterations, the validation at their end (DIRECT has none before iteration 5), and one prediction.
    assert (trained, len(seen)) == (9, 10)
    # The path seeds the mask.
    monkeypatch.chdir(data.parent)
    expected = problem_of_case(Path("data"), settings).problem
    for found in seen:
        for image in found.masked_kspace:
            torch.testing.assert_close(image, expected.masked_kspace[0], rtol=1e-4, atol=1e-4)
    with h5py.File(posterior_path(output, Path("a.h5"))) as file:
        assert "prewhitening: file" in file.attrs["configuration"]


def test_coils_are_compressed_after_whitening(data, kspace):
    write(data, kspace, noise_covariance=COVARIANCE)
    settings = tiny_direct.with_transforms(config("file"), {"compress_coils": 2})
    case = problem_of_case(data, settings)
    assert case.problem.masked_kspace.shape[1] == 2
    whole = problem_of_case(data, config("file")).problem.scale
    # What is left out is noise.
    assert float(case.problem.scale) == pytest.approx(float(whole), rel=0.05)


def test_a_dataset_is_not_changed_by_whitening(data, kspace):
    write(data, kspace, noise_covariance=COVARIANCE)
    dataset = inference_dataset(tiny_direct.write_configuration(data.parent / "plain.yaml", config(None)), data)
    before = dataset[0]["masked_kspace"]
    whitened = with_prewhitening(dataset, "file")[0]["masked_kspace"]
    assert with_prewhitening(dataset, None) is dataset
    torch.testing.assert_close(dataset[0]["masked_kspace"], before, rtol=0, atol=0)
    assert float((whitened - before).norm() / before.norm()) > 0.1


# ---- What is wrong with it


def test_sources_that_are_none_are_one_line(one_line_error):
    with one_line_error("model.prewhitening is 'yes'", "allowed: null, file, corners", "noise.npy"):
        system_of({"prewhitening": "yes"})
    for source in (None, "file", "corners", "a/b.npy"):
        assert system_of({"prewhitening": source}).settings.prewhitening == source


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, ("holds no noise", "noise_covariance")),
        ({"noise_covariance": COVARIANCE, "noise": noise_scan()}, ("holds noise_covariance and noise", "one of")),
        ({"noise_covariance": -COVARIANCE}, ("noise_covariance: ", "positive definite")),
        ({"noise_covariance": FACTOR}, ("noise_covariance: ", "Hermitian")),
        ({"noise_covariance": COVARIANCE[:2]}, ("noise_covariance: ", "shape (2, 3)")),
        ({"noise_covariance": COVARIANCE * np.nan}, ("noise_covariance: ", "NaN")),
        ({"noise_covariance": np.eye(3, dtype=int)}, ("noise_covariance has type int64", "complex")),
        ({"noise": noise_scan(samples=20)}, ("noise: ", "20 samples of 3 coils")),
        ({"noise": noise_scan().real}, ("noise: ", "float32", "complex")),
        ({"noise_covariance": np.eye(4)}, ("slice 0: covariance has shape (4, 4)", "3 coils: (3, 3)")),
    ],
)
def test_noise_of_a_file_that_is_wrong_is_one_line(data, kspace, one_line_error, arrays, words):
    write(data, kspace, **arrays)
    with one_line_error("a.h5", "allowed", *words):
        problem_of_case(data, config("file"))


def test_an_array_file_that_is_wrong_is_one_line(data, kspace, one_line_error):
    write(data, kspace)
    (data.parent / "text.npy").write_text("nothing")
    np.save(data.parent / "singular.npy", np.ones((3, 3)))
    for name in ("missing", "text", "singular"):
        with one_line_error("model.prewhitening", f"{name}.npy"):
            problem_of_case(data, config(str(data.parent / f"{name}.npy")))


def test_training_ends_with_the_line(data, kspace, tmp_path, exit_with_one_line):
    write(data, kspace)
    with exit_with_one_line("a.h5", "holds no noise", "allowed with model.prewhitening: file"):
        tiny_direct.direct_train(tmp_path / "runs", config("file"), data)


def test_the_noise_scan_of_these_tests_has_the_covariance():
    found = noise_covariance(torch.from_numpy(noise_scan(samples=100_000))).numpy()
    assert np.abs(found - COVARIANCE).max() < 4 * COVARIANCE.max() / 100_000**0.5
