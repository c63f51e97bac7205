"""The comparison of the samplers: its study is valid, its settings are what they say, and its tables add up."""

from contextlib import chdir
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tiny_direct

from direct_deepen.engines.trained import load_system
from direct_deepen.evaluation.study import Run, load_study
from direct_deepen.inference import AnnealedLangevin, DiffusionSampling, Langevin
from projects.sampling import cost, report, run

SAMPLERS = {"deepen": Langevin, "alps": AnnealedLangevin, "dps": DiffusionSampling}


def test_every_sampler_of_the_study_takes_the_evaluations_of_its_name(tmp_path):
    with chdir(tiny_direct.REPOSITORY):
        comparison, output = tmp_path / "comparison", tmp_path / "out"
        run.write_study(comparison, output)
        study = load_study(output / "study.yaml")
        training = run.alps_training(output, comparison / "data")
        assert training.configuration["model"]["objective"]["teacher_checkpoint"] == str(run.weights("dps", output))
    for name, method in study.methods.items():
        system, _, evaluations = name.partition("_")
        assert len(method.tune.values) == run.CANDIDATES
        if evaluations == "map":
            continue
        found = load_system(method.configuration).inference
        assert isinstance(found, SAMPLERS[system])
        levels = getattr(found, "num_levels", 1) * getattr(found, "inner_steps", 1)
        assert int(evaluations) == (levels if system == "alps" else found.num_steps)
        assert found.num_samples == run.SAMPLES
        trained = {"deepen": comparison / "2d6x" / "deepen", "alps": output / "alps", "dps": output / "dps"}
        assert Run("2d6x", name, method).path(method.checkpoint).parent == trained[system]
    # What is compared on both problems, and on the first all numbers of evaluations.
    names = {problem: [one.name for one in study.runs() if one.problem == problem] for problem in run.PROBLEMS}
    assert names["2d6x"] == ["deepen_map", *(f"{system}_{count}" for system, count in run.COMPARED["2d6x"].items())]
    assert names["2d4x"] == ["deepen_map", *(f"{system}_{n}" for system, steps in run.STEPS.items() for n in steps)]
    assert all(f"{system}_{count}" in names["2d4x"] for system, count in run.COMPARED["2d4x"].items())


def test_the_slices_are_the_first_of_the_comparisons_volumes(tmp_path):
    for part in run.VOLUMES:
        tiny_direct.write_volumes(tmp_path / "comparison" / "data" / part, ["a", "b"], seed=1)
    run.write_slices(tmp_path / "comparison", tmp_path / "out")
    before, after = (tmp_path / folder / "data" / "test" / "b.h5" for folder in ("comparison", "out"))
    with h5py.File(before) as whole, h5py.File(after) as part:
        assert len(part["kspace"]) == 1
        np.testing.assert_array_equal(part["kspace"][0], whole["kspace"][0])
        assert dict(part.attrs) == dict(whole.attrs)


def test_the_tables_have_the_means_of_every_run_and_blanks_for_those_that_are_missing():
    nothing = float("nan")
    values = {"ssim": 0.9, "parameters": 340432, "tuned": 0.3, "sample_evaluations": 1000.0, "std": 0.02, "error": 0.01}
    values |= {"method": "dps_1000", "mask": "2d4x", "coverage_90": 0.5}
    rows = [SimpleNamespace(psnr=psnr, **values) for psnr in (30.0, 32.0)]
    table = report.claim(rows)
    (line,) = (line for line in table.splitlines() if line.startswith("| 2d4x | DPS"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:] == ["340,432", "1000", "31.00", "0.900", "0.0200", "0.0100", "50%", "0.3"]
    assert str(nothing) in next(line for line in table.splitlines() if line.startswith("| 2d6x | DPS"))


def test_the_cost_of_a_sample_is_that_of_an_evaluation_times_their_number():
    scale = cost.Scale(16, 2, 4, ((4, 8), 1), ((4, 8), 1), repetitions=1, steps=2)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in cost.table(scale).splitlines()[2:6]]
    assert [line[0] for line in lines] == ["DEEPEN", "ALPS", "ALPS", "DPS"]
    for line in lines:
        flops, seconds, evaluations, total_flops, total_seconds = (float(cell) for cell in line[2:7])
        assert total_flops == pytest.approx(flops * evaluations / 1e3, rel=0.02)
        assert total_seconds == pytest.approx(seconds * evaluations, rel=0.02)
    # Five 3x3 layers at 16x16: 2-4-4-4-4-2 channels, forward and back to the image, two operations each.
    expected = 2 * 2 * 9 * 16 * 16 * (2 * 4 + 3 * 4 * 4 + 4 * 2) / 1e9
    assert float(lines[0][2]) == pytest.approx(expected, rel=0.01)
