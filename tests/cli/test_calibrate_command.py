"""``direct-deepen calibrate`` from data and weights to the file beside the checkpoint."""

import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_direct
import torch

from direct_deepen import calibration_study
from direct_deepen.calibration import LEVELS, containing_level, object_pixels
from direct_deepen.engines.calibration_file import read_calibration
from direct_deepen.engines.reconstruction import reconstruct, sample_posterior
from direct_deepen.trained import load_settings, load_trained

KINDS = [
    (stage, reference, pixels)
    for stage, references in (("before", ("clean", "data noise", "own sample")), ("after", ("clean", "data noise")))
    for reference in references
    for pixels in ("object", "all")
]


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def arguments(study, output, checkpoint, **changes):
    values = {
        "cfg": study.configuration, "checkpoint": checkpoint, "data-root": study.test.name,
        "validation-root": study.validation.name, "seed": 4,
    } | changes  # fmt: skip
    return ["calibrate", str(output), *(word for name, value in values.items() for word in (f"--{name}", str(value)))]


@pytest.fixture
def run(tmp_path, study, run_command):
    """The command in a folder of its own, with a copy of the weights; ``again`` runs it with other arguments."""
    checkpoint = tmp_path / "weights" / study.checkpoint.name
    checkpoint.parent.mkdir()
    shutil.copy(study.checkpoint, checkpoint)
    output = tmp_path / "output"

    def again(**changes):
        return run_command(arguments(study, output, checkpoint, **changes))

    return SimpleNamespace(
        again=again, output=output, sidecar=checkpoint.with_suffix(".calibration.yaml"), checkpoint=checkpoint
    )


def test_the_scale_that_fits_the_validation_data_stands_beside_the_checkpoint_and_figures_are_of_the_test_data(
    run, study, monkeypatch
):
    result = run.again()
    assert (result.code, [line for line in result.errors if "error" in line]) == (0, [])
    assert str(run.sidecar) in result.output
    assert (run.output / "table.md").read_text() in result.output
    assert (run.output / "calibration.png").stat().st_size > 10_000

    # The same by hand, from what `direct predict` would sample.
    settings, energy = load_settings(study.configuration), load_trained(run.checkpoint, study.configuration)
    calibration = read_calibration(run.sidecar)
    assert (calibration.slices, calibration.volumes, calibration.seed) == (1, 1, 4)
    calibration.require_fit_to(run.sidecar, energy.state_dict(), settings)
    (validation,) = study.cases(study.validation)
    posterior = sample_posterior(validation.problem, energy, settings, seed=4)
    reference = validation.reference.abs()
    pixels = object_pixels(reference)
    covered = containing_level(posterior.rescaled(calibration.std_scale), reference)[pixels] <= 0.9
    # The share goes in steps of one pixel, and the scale is known to a thousandth.
    assert float(covered.double().mean()) == pytest.approx(0.9, abs=0.01)

    rows = rows_of(run.output / "cases.csv")
    cases = study.cases(study.test)
    assert [(row["stage"], row["reference"], row["pixels"]) for row in rows] == len(cases) * KINDS
    posterior = sample_posterior(cases[0].problem, energy, settings, seed=4).rescaled(calibration.std_scale)
    reference = cases[0].reference.abs()
    lower, upper = posterior.interval(0.95)
    share = ((lower <= reference) & (reference <= upper)).double().mean()
    (row,) = [row for row in rows[: len(KINDS)] if (row["stage"], row["reference"], row["pixels"]) == KINDS[7]]
    assert (row["case"], KINDS[7]) == ("a.h5#0", ("after", "clean", "all"))
    assert float(row["coverage_95"]) == pytest.approx(float(share), abs=1e-3)

    curves = rows_of(run.output / "calibration_curve.csv")
    assert len(curves) == len(KINDS) * len(LEVELS)
    mean = np.mean([float(row["coverage_90"]) for row in rows if row["stage"] == "after"])
    assert np.mean(
        [float(row["coverage"]) for row in curves if (row["stage"], row["level"]) == ("after", "0.9")]
    ) == pytest.approx(mean, abs=1e-4)

    # What is sampled is kept: another run draws nothing, and another seed draws anew.
    monkeypatch.setattr(calibration_study, "sample_posterior", lambda *_, **__: pytest.fail("sampled again"))
    run.sidecar.unlink()
    assert run.again().code == 0
    assert read_calibration(run.sidecar) == calibration
    with pytest.raises(pytest.fail.Exception):
        run.again(seed=5)


def test_at_most_so_many_slices_are_sampled_spread_over_the_volumes(run, study, monkeypatch):
    sampled = []

    def noise(problem, energy, settings, *, seed):
        ((name, number),) = problem.names
        sampled.append((name.rsplit("/", 1)[-1], number))
        generator = torch.Generator().manual_seed(seed)
        shape = (12, 1, tiny_direct.SIZE, tiny_direct.SIZE)
        spread = torch.randn(shape, generator=generator) + 1j * torch.randn(shape, generator=generator)
        posterior = sample_posterior(problem, energy, settings, seed=seed)
        return type(posterior)(images=posterior.mean + 0.1 * spread, diagnostics=posterior.diagnostics)

    monkeypatch.setattr(calibration_study, "sample_posterior", noise)
    assert run.again(slices=2).code == 0
    assert sampled == [("v.h5", 0), ("a.h5", 0), ("b.h5", 0)]


def test_what_is_sampled_is_what_is_predicted(study):
    settings, energy = load_settings(study.configuration), load_trained(study.checkpoint, study.configuration)
    problem = study.cases(study.validation)[0].problem
    posterior = sample_posterior(problem, energy, settings, seed=1)
    with torch.no_grad():
        predicted = reconstruct(problem, energy, settings, seed=1).arrays
    assert torch.equal(problem.to_data_units(posterior.mean), predicted["mean"])
    assert torch.equal(problem.to_data_units(posterior.std), predicted["std"])


def test_bad_input_is_one_line_and_writes_no_calibration(run, study, tmp_path):
    config = tiny_direct.changed(
        tiny_direct.configuration(), {"model.inference.num_samples": 2, "model.inference.estimator": "posterior_mean"}
    )
    few = tiny_direct.write_configuration(tmp_path / "few.yaml", config)
    varnet = tiny_direct.write_configuration(tmp_path / "varnet.yaml", tiny_direct.configuration("demo_varnet"))
    for changes, words in (
        ({"slices": 0}, ["--slices is 0"]),
        ({"cfg": few}, ["model.inference.num_samples is 2", "3 or more"]),
        ({"cfg": varnet}, ["varnet.yaml", "model_name"]),
        ({"checkpoint": "none.pt"}, ["none.pt", "no such checkpoint"]),
        ({"data-root": "nowhere"}, ["nowhere", "no such folder"]),
    ):
        result = run.again(**changes)
        assert result.code == 2
        (line,) = result.errors
        for word in words:
            assert word in line
    assert not run.sidecar.exists()
    assert not run.output.exists()
