"""``direct-deepen posterior`` and ``direct-deepen landscape``, from what DIRECT wrote to pictures and pages."""

import json
import re

import h5py
import numpy as np
import pytest
import torch
from matplotlib import image as matplotlib_image

from direct_deepen.engines.trained import load_trained
from direct_deepen.evaluation.landscape import landscape
from direct_deepen.evaluation.metrics import quality
from direct_deepen.pages.landscape_view import statistics


@pytest.fixture
def posterior(study):
    return study.prediction / "a.posterior.h5"


def content_of(page):
    return json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page.read_text("utf-8"))[0])


def line_of(output, name):
    return [line.partition(": ")[2] for line in output.splitlines() if line.strip().startswith(f"{name}: ")]


def test_a_file_alone_is_shown_with_its_figures(tmp_path, study, run_command, posterior):
    page, picture = tmp_path / "page.html", tmp_path / "new" / "slice.png"
    result = run_command(["posterior", str(posterior), "--html", str(page), "--out", str(picture), "--slice", "2"])
    assert (result.code, result.errors) == (0, [])
    with h5py.File(posterior) as file:
        costs = [f"{cost:.4g}" for cost in file["cost"][()]]
    assert line_of(result.output, "cost C") == costs
    content = content_of(page)
    titles = [panel["title"] for panel in content["panels"]]
    assert titles == ["MAP", "posterior mean", "standard deviation", "5 % quantile", "95 % quantile"]
    assert content["labels"] == ["slice 1 of 2", "slice 2 of 2"]
    assert [values["cost C"] for values in content["statistics"]] == costs
    assert matplotlib_image.imread(picture).std() > 0.1


def test_with_its_data_a_file_is_compared_with_the_references_of_the_score(tmp_path, study, run_command, posterior):
    page = tmp_path / "page.html"
    data = ["--cfg", str(study.configuration), "--data-root", study.test.name]
    result = run_command(["posterior", str(posterior), *data, "--html", str(page)])
    assert (result.code, result.errors) == (0, [])
    titles = [panel["title"] for panel in content_of(page)["panels"]]
    assert titles[:5] == ["reference", "MAP", "posterior mean", "|error| of mean", "standard deviation"]
    mine = [case for case in study.cases(study.test) if case.volume == "a.h5"]
    with h5py.File(posterior) as file:
        images = torch.from_numpy(file["map"][()])
    expected = [
        quality(image / case.problem.scale, case.reference[0]).psnr for image, case in zip(images, mine, strict=True)
    ]
    found = [float(text.removesuffix(" dB")) for text in line_of(result.output, "PSNR (slice maximum), MAP")]
    # Two decimals are printed.
    assert found == pytest.approx(expected, abs=0.006)


def test_series_of_a_prediction_have_its_mean_and_its_deviation(tmp_path, run_command, posterior):
    result = run_command(["posterior", str(posterior), "--dicom", str(tmp_path / "series")])
    assert (result.code, result.errors) == (0, [])
    assert result.output.endswith(f"wrote {tmp_path / 'series'}\n")
    names = sorted(path.name for path in (tmp_path / "series").iterdir())
    assert names == [f"{kind}_000{number}.dcm" for kind in ("mean", "std") for number in (1, 2)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slice", "3"], ["--slice", "3", "1 to 2"]),
        (["--cfg", "posterior.yaml"], ["--cfg", "--data-root"]),
        (["--cfg", "posterior.yaml", "--data-root", "validation"], ["a.h5", "no such volume"]),
        (["--nifti", "brain.mgz"], ["brain.mgz", ".nii"]),
        (["--dicom", "posterior.yaml"], ["posterior.yaml", "cannot be written"]),
    ],
)
def test_bad_arguments_get_one_line(study, run_command, posterior, arguments, words):
    result = run_command(["posterior", str(posterior), *arguments])
    assert result.code == 2
    (line,) = result.errors
    assert all(word in line for word in words)


def test_a_missing_file_and_other_data_get_one_line(tmp_path, study, run_command, copied):
    result = run_command(["posterior", "none.posterior.h5"])
    assert (result.code, len(result.errors)) == (2, 1)
    assert "none.posterior.h5: no such file" in result.errors[0]
    with h5py.File(copied / "a.posterior.h5", "r+") as file:
        file["scale"][...] = 2 * file["scale"][()]
    data = ["--cfg", str(study.configuration), "--data-root", study.test.name]
    result = run_command(["posterior", str(copied / "a.posterior.h5"), *data])
    assert (result.code, len(result.errors)) == (2, 1)
    assert "intensity scales" in result.errors[0]


# ---- Landscapes


def test_landscapes_are_those_of_the_checkpoint_around_the_slices_asked_for(tmp_path, study, run_command):
    data = ["--cfg", str(study.configuration), "--data-root", study.test.name, "--volume", "b.h5", "--seed", "3"]
    page, picture = tmp_path / "page.html", tmp_path / "planes.png"
    outputs = ["--html", str(page), "--out", str(picture)]
    result = run_command(["landscape", str(study.checkpoint), *data, "--slices", "2", "1", *outputs])
    assert (result.code, result.errors) == (0, [])
    energy = load_trained(study.checkpoint, study.configuration)
    generator = torch.Generator().manual_seed(3)
    cases = [case for case in study.cases(study.test) if case.volume == "b.h5"]
    planes = [
        landscape(case.problem.A, case.problem.masked_kspace, energy, case.reference, generator=generator)
        for case in (cases[1], cases[0])
    ]
    content = content_of(page)
    assert content["labels"] == ["b.h5, slice 2", "b.h5, slice 1"]
    assert content["statistics"] == [statistics(plane) for plane in planes]
    assert line_of(result.output, "E at SENSE") == [values["E at SENSE"] for values in content["statistics"]]
    assert np.std(matplotlib_image.imread(picture)) > 0.1


def test_the_same_seed_draws_the_same_plane_and_another_seed_another(tmp_path, study, run_command):
    data = ["--cfg", str(study.configuration), "--data-root", study.test.name]

    def drawn(seed):
        page = tmp_path / "page.html"
        result = run_command(["landscape", str(study.checkpoint), *data, "--seed", str(seed), "--html", str(page)])
        return result.output, page.read_bytes()

    first = drawn(0)
    assert drawn(0) == first
    assert drawn(1) != first


def test_the_weights_of_the_package_are_drawn_around_the_middle_slice_of_the_first_volume(study, run_command):
    data = ["--cfg", str(study.configuration), "--data-root", study.test.name]
    result = run_command(["landscape", "pretrained", *data])
    assert (result.code, result.errors) == (0, [])
    assert result.output.startswith("a.h5, slice 1\n")


def test_a_slice_that_is_not_there_gets_one_line(study, run_command):
    data = ["--cfg", str(study.configuration), "--data-root", study.test.name]
    result = run_command(["landscape", "pretrained", *data, "--slices", "5"])
    assert (result.code, len(result.errors)) == (2, 1)
    assert all(word in result.errors[0] for word in ("--slices", "5", "1 to 2"))
