"""Commands compare predictions with references of the same coil maps: those of the configuration."""

import json
import re
from contextlib import chdir

import h5py
import numpy as np
import pytest
import tiny_direct
import torch

from direct_deepen.data.cases import cases, coil_maps_of, inference_dataset
from direct_deepen.engines.trained import load_trained
from direct_deepen.evaluation.benchmark import reconstruct_test_data
from direct_deepen.evaluation.landscape import landscape
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.study import load_study
from direct_deepen.evaluation.tables import read_results
from direct_deepen.pages.landscape_view import statistics


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    config = tiny_direct.configuration(iterations=6, warm_start=6)
    path = tmp_path_factory.mktemp("espirit") / "espirit.yaml"
    return tiny_direct.write_configuration(path, tiny_direct.with_espirit(config))


@pytest.fixture(scope="module")
def espirit_cases(study, configuration):
    with chdir(study.folder):
        return list(cases(inference_dataset(configuration, study.test.relative_to(study.folder)), coil_maps="espirit"))


@pytest.fixture(scope="module")
def prediction(tmp_path_factory, study, espirit_cases):
    """A prediction in DIRECT's format that is the reference with ESPIRiT's maps, and posterior files of it."""
    folder = tmp_path_factory.mktemp("prediction")
    for volume in ("a", "b"):
        mine = [case for case in espirit_cases if case.volume == f"{volume}.h5"]
        images = torch.cat([case.problem.to_data_units(case.reference) for case in mine])
        with h5py.File(folder / f"{volume}.h5", "w") as file:
            file["reconstruction"] = images.abs().numpy()
            file["sampling_mask"] = torch.cat([case.problem.A.sampling_mask[:, 0] for case in mine]).numpy()
        with h5py.File(folder / f"{volume}.posterior.h5", "w") as file:
            file["image"] = images.numpy()
            file["seconds"] = np.ones(len(mine))
            file["scale"] = torch.cat([case.problem.scale for case in mine]).numpy()
    return folder


def test_the_maps_are_those_of_the_model_section_and_direct_s_where_it_says_nothing(tmp_path, study, configuration):
    assert coil_maps_of(configuration) == "espirit"
    assert coil_maps_of(study.configuration) == "direct"
    varnet = tiny_direct.write_configuration(tmp_path / "varnet.yaml", tiny_direct.configuration("demo_varnet"))
    assert coil_maps_of(varnet) == "direct"


def test_runs_compare_with_references_of_these_maps_and_compute_them_once(
    tmp_path, study, configuration, prediction, computed, monkeypatch
):
    monkeypatch.chdir(study.folder)
    methods = {
        "perfect": {"predictions": str(prediction), "checkpoint": str(study.checkpoint)},
        "sense": {"classical": "sense"},
    }
    problems = {"espirit": str(configuration)}
    found = load_study(study.write(tmp_path / "study.yaml", methods=methods, problems=problems))
    # Four test slices; one of validation, where something is tuned.
    for number, run in zip((4, 5, 5), [*found.runs(), found.runs()[0]], strict=True):
        reconstruct_test_data(found, run, tmp_path / "espirit" / run.name)
        assert len(computed) == len(list((tmp_path / "espirit" / "coil_maps").iterdir())) == number
    # The rounding of single precision. With DIRECT's maps the reference is another image.
    assert (read_results([tmp_path / "espirit" / "perfect" / "rows.csv"])["psnr"] > 100).all()


def test_posterior_shows_the_error_to_references_of_these_maps_and_reads_those_of_the_prediction(
    study, configuration, prediction, run_command, computed
):
    data = ["--cfg", str(configuration), "--data-root", study.test.name]
    result = run_command(["posterior", str(prediction / "a.posterior.h5"), *data])
    assert (result.code, result.errors) == (0, [])
    found = [float(text) for text in re.findall(r"PSNR \(slice maximum\), .*: (\S+) dB", result.output)]
    assert len(found) == 2
    assert min(found) > 100
    assert len(computed) == 2
    assert {path.suffix for path in prediction.iterdir()} == {".h5"}

    (prediction / "coil_maps").mkdir()
    for _ in range(2):
        assert run_command(["posterior", str(prediction / "a.posterior.h5"), *data]).code == 0
    assert len(computed) == 4


def test_landscapes_are_drawn_around_references_of_these_maps(
    tmp_path, study, configuration, espirit_cases, run_command
):
    page = tmp_path / "page.html"
    data = ["--cfg", str(configuration), "--data-root", study.test.name, "--slices", "2"]
    result = run_command(["landscape", str(study.checkpoint), *data, "--html", str(page)])
    assert (result.code, result.errors) == (0, [])
    content = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page.read_text("utf-8"))[0])
    case, energy = espirit_cases[1], load_trained(study.checkpoint, configuration)
    generator = torch.Generator().manual_seed(0)
    plane = landscape(case.problem.A, case.problem.masked_kspace, energy, case.reference, generator=generator)
    assert content["statistics"] == [statistics(plane)]


def test_references_of_either_maps_differ(study, configuration, espirit_cases):
    for case, other in zip(espirit_cases, study.cases(study.test, configuration), strict=True):
        assert quality(other.reference[0], case.reference[0]).psnr < 60
