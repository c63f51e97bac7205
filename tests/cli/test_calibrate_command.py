"""``direct-deepen calibrate`` from data and weights to the file beside the checkpoint."""

import csv
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import numpy as np
import pytest
import recorded
import tiny_direct
import torch
import yaml
from scipy.stats import t as student

from direct_deepen.engines.calibration_file import read_calibration
from direct_deepen.engines.reconstruction import named_generator, reconstruct, sample_posterior
from direct_deepen.engines.trained import load_system, load_trained
from direct_deepen.evaluation.calibration_study import SampledSlice, fit, missed_beyond
from direct_deepen.evaluation.sample_store import fingerprint, kept_posterior
from direct_deepen.pages import calibration_plots
from direct_deepen.physics import SenseOperator, complex_normal
from direct_deepen.physics.rings import scale_rings
from direct_deepen.posterior.calibration import LEVELS, held, needed_scales, object_pixels, ring_powers
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.priors import ConvEnergy, QuadraticEnergy

KINDS = [
    (stage, reference, pixels)
    for stage, references in (("before", ("clean", "data noise", "own sample")), ("after", ("clean", "data noise")))
    for reference in references
    for pixels in ("object", "all", "2×2", "4×4", "8×8")
]
KIND = ("stage", "reference", "pixels")
SHARES = tuple(round(0.05 * number, 2) for number in range(20))


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def arguments(study, output, weights, configuration, **changes):
    values = {
        "cfg": configuration, "checkpoint": weights, "data-root": study.test.name,
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
    # A network of six iterations errs far more than its samples spread, unless these are as warm as that.
    changes = {
        "model.inference.noise_std": 0.1,
        "model.inference.prior_weight": 0.01,
        "model.inference.num_samples": 16,
    }
    config = tiny_direct.recorded(tiny_direct.changed(yaml.safe_load(study.configuration.read_text()), changes))
    configuration = tiny_direct.write_configuration(tmp_path / "warm.yaml", config)

    def again(**changes):
        return run_command(arguments(study, output, checkpoint, configuration, **changes))

    return SimpleNamespace(
        again=again,
        output=output,
        configuration=configuration,
        checkpoint=checkpoint,
        sidecar=checkpoint.with_suffix(".calibration.yaml"),
    )


@pytest.fixture
def no_picture(monkeypatch):
    """Where tables alone are looked at: the picture takes as long as all that it shows."""
    monkeypatch.setattr(calibration_plots, "plot_calibration", lambda *_: None)


def test_the_scale_that_fits_the_validation_data_stands_beside_the_checkpoint_and_figures_are_of_the_test_data(
    run, study
):
    result = run.again()
    assert (result.code, [line for line in result.errors if "error" in line]) == (0, [])
    assert str(run.sidecar) in result.output
    assert (run.output / "table.md").read_text() in result.output
    assert (run.output / "calibration.png").stat().st_size > 10_000

    # The same by hand, from what `direct predict` would sample.
    inference, energy = load_system(run.configuration).inference, load_trained(run.checkpoint, run.configuration)
    calibration = read_calibration(run.sidecar)
    assert (calibration.slices, calibration.volumes, calibration.seed) == (1, 1, 4)
    calibration.require_fit_to(run.sidecar, energy.state_dict(), inference)
    (validation,) = study.cases(study.validation)
    posterior = sample_posterior(validation.problem, energy, inference, seed=4)
    reference = validation.reference
    pixels = object_pixels(reference)
    covered = held(calibration.corrected(posterior), reference).at(pixels).containing <= 0.9
    # The share goes in steps of one pixel.
    assert float(covered.double().mean()) == pytest.approx(0.9, abs=1 / int(pixels.sum()))
    error, predicted = ring_powers(posterior.rescaled(1.0, calibration.ring_scales), reference)
    # Up to the end of the fit, but for factors at their bounds.
    free = np.array([0.26 < scale < 15 for scale in calibration.ring_scales])
    assert free.any()
    np.testing.assert_allclose((error / predicted).numpy()[free], 1, atol=0.05)
    # One volume promises nothing.
    assert calibration.guaranteed_scale is None
    assert "No guarantee" in (run.output / "table.md").read_text()

    rows = rows_of(run.output / "cases.csv")
    cases = study.cases(study.test)
    assert [(row["stage"], row["reference"], row["pixels"]) for row in rows] == len(cases) * KINDS
    posterior = calibration.corrected(sample_posterior(cases[0].problem, energy, inference, seed=4))
    reference = posterior.in_phase(cases[0].reference)
    lower, upper = posterior.interval(0.95)
    share = ((lower <= reference) & (reference <= upper)).double().mean()
    kind = ("after", "clean", "all")
    (row,) = [row for row in rows[: len(KINDS)] if (row["stage"], row["reference"], row["pixels"]) == kind]
    assert row["case"] == "a.h5#0"
    assert float(row["coverage_95"]) == pytest.approx(float(share), abs=1e-3)

    curves = rows_of(run.output / "calibration_curve.csv")
    assert len(curves) == len(KINDS) * len(LEVELS)
    mean = np.mean([float(row["coverage_90"]) for row in rows if row["stage"] == "after"])
    assert np.mean(
        [float(row["coverage"]) for row in curves if (row["stage"], row["level"]) == ("after", "0.9")]
    ) == pytest.approx(mean, abs=1e-4)

    # What is sampled is kept: another run draws nothing, and another seed draws anew.
    run.sidecar.unlink()
    with recorded.listening(recorded.BEFORE_SAMPLES, lambda _: pytest.fail("sampled again")):
        assert run.again().code == 0
        assert read_calibration(run.sidecar) == calibration
        with pytest.raises(pytest.fail.Exception):
            run.again(seed=5)


def means_of_blocks(values, size):
    """Means over blocks of the last two axes, cut into whole ones."""
    rows, columns = (length // size for length in values.shape[-2:])
    whole = values[..., : rows * size, : columns * size]
    return whole.reshape(*whole.shape[:-2], rows, size, columns, size).mean(axis=(-3, -1))


def expected_figures(images, reference, pixels, size, chains):
    """The columns of a row, and its sparsification curves, in NumPy from the definitions.

    ``images``: complex (sample, row, column); ``reference``: complex; ``pixels``: those that count.
    """
    phase = np.exp(-1j * np.angle(images.mean(axis=0)))
    values, target = (means_of_blocks(np.real(x * phase), size) for x in (images, reference))
    whole = means_of_blocks(pixels.astype(float), size) == 1
    mean, std = (found[whole] for found in (values.mean(axis=0), values.std(axis=0, ddof=1)))
    error = np.abs(mean - target[whole])

    def coverage(level):
        return (error <= student.ppf((1 + level) / 2, chains - 1) * std * np.sqrt(1 + 1 / chains)).mean()

    left = [max(1, round((1 - share) * error.size)) for share in SHARES]
    by_std, oracle = (
        np.array([kept[:number].mean() for number in left]) / error.mean()
        for kept in (error[np.argsort(std)], np.sort(error))
    )
    gap = by_std - oracle
    levels = np.arange(1, 20) / 20
    figures = {f"coverage_{round(100 * level)}": coverage(level) for level in (0.5, 0.9, 0.95)} | {
        "calibration_error": np.mean([abs(coverage(level) - level) for level in levels]),
        "pearson": np.corrcoef(std, error)[0, 1],
        "spearman": np.corrcoef(std.argsort().argsort(), error.argsort().argsort())[0, 1],
        "ause": np.sum((gap[1:] + gap[:-1]) / 2) * 0.05,
        "spread_over_error": np.sqrt(np.mean(std**2) / np.mean(error**2)),
    }
    return figures, by_std, oracle


def with_noise(case, std, seed):
    """A reference with complex noise, drawn as the command draws it for this slice."""
    reference = case.reference[0]
    generator = named_generator(seed, (f"data noise of {case.volume}", case.slice_number), torch.device("cpu"))
    noise = complex_normal((1, *reference.shape), generator=generator)[0]
    return reference.numpy().astype(complex) + std * noise.numpy()


def corrected(images, calibration):
    """Samples with the factors of a calibration: rings by the package, which has tests of its own."""
    mean = images.mean(axis=0)
    return mean + calibration.std_scale * scale_rings(torch.from_numpy(images - mean), calibration.ring_scales).numpy()


@pytest.mark.usefixtures("no_picture")
def test_every_figure_is_that_of_the_samples_before_and_after_the_scale(run, study):
    inference = load_system(run.configuration).inference
    # Neither that of training nor its default, so that it has to come from the configuration.
    config = tiny_direct.changed(
        yaml.safe_load(run.configuration.read_text()), {"model.objective.data_noise_factor": 2}
    )
    run.configuration.write_text(yaml.safe_dump(config))
    assert run.again().code == 0
    calibration = read_calibration(run.sidecar)
    assert abs(max(calibration.ring_scales) - 1) > 0.1
    noise_std = 2 * inference.shared.noise_std
    keep, chains = inference.keep, inference.num_samples

    rows, curves = rows_of(run.output / "cases.csv"), {}
    for case in study.cases(study.test):
        name = f"{case.volume}#{case.slice_number}"
        kept = torch.load(run.output / "samples" / "test" / f"{name}.pt", weights_only=True)
        images = kept["images"][:, 0].numpy().astype(complex)
        wide = corrected(images, calibration)
        clean = case.reference[0].numpy().astype(complex)
        noisy, other = (with_noise(case, std, 4) for std in (noise_std, 10 * noise_std))
        posteriors = {
            ("before", "clean"): (images, clean, chains),
            ("before", "data noise"): (images, noisy, chains),
            # The first chain is left out, and its last state is what is to be covered.
            ("before", "own sample"): (images[keep:], images[keep - 1], chains - 1),
            ("after", "clean"): (wide, clean, chains),
            ("after", "data noise"): (wide, noisy, chains),
        }
        inside, everywhere = abs(clean) > 0.05 * abs(clean).max(), np.ones(clean.shape, bool)
        for stage, reference, pixels in KINDS:
            found = [
                row
                for row in rows
                if (row["case"], row["stage"], row["reference"], row["pixels"]) == (name, stage, reference, pixels)
            ]
            size = {"object": 1, "all": 1}.get(pixels) or int(pixels[0])
            chosen = everywhere if pixels == "all" else inside
            if (means_of_blocks(chosen.astype(float), size) == 1).sum() < 3:
                assert not found
                continue
            samples, target, number = posteriors[stage, reference]
            expected, by_std, oracle = expected_figures(samples, target, chosen, size, number)
            (row,) = found
            # Single precision, six digits, and at the end of an interval a pixel may fall to either side.
            assert {column: float(row[column]) for column in expected} == pytest.approx(expected, rel=1e-3, abs=2e-3)
            curves.setdefault((stage, reference, pixels), []).append((by_std, oracle))
        # The size of the noise matters by far more than that.
        wrong, _, _ = expected_figures(images, other, everywhere, 1, chains)
        (row,) = [
            row for row in rows if tuple(row[key] for key in ("case", *KIND)) == (name, "before", "data noise", "all")
        ]
        assert abs(wrong["coverage_50"] - float(row["coverage_50"])) > 0.02

    found = rows_of(run.output / "sparsification.csv")
    # Those of the object first.
    kinds = sorted(curves, key=lambda kind: kind[2] != "object")
    assert [(*(row[key] for key in KIND), float(row["removed"])) for row in found] == [
        (*kind, share) for kind in kinds for share in SHARES
    ]
    means = np.concatenate([np.mean(curves[kind], axis=0).T for kind in kinds])
    np.testing.assert_allclose([[float(row["by_std"]), float(row["oracle"])] for row in found], means, rtol=5e-3)


def test_the_guarantee_is_of_samples_without_the_factors_that_were_fitted_to_the_same_volumes(study, draw):
    prior = load_trained(study.checkpoint, study.configuration)
    inference = load_system(study.configuration).inference
    slices = []
    for seed in range(0, 18, 2):
        mean = 10 + torch.zeros(1, 16, 16, dtype=torch.complex128)
        samples = Posterior.from_images(mean + draw(12, 1, 16, 16, seed=seed))
        slices.append(SampledSlice(f"{seed}.h5#0", samples, mean + 2 * draw(1, 16, 16, seed=seed + 1)))
    calibration = fit(slices, prior, inference, seed=0)
    assert calibration.volumes == 9
    # Nine volumes allow no miss: the largest that any pixel needs, of samples that are half as wide as the error.
    needed = [needed_scales(item.posterior, item.reference, level=0.9) for item in slices]
    assert calibration.guaranteed_scale == pytest.approx(float(torch.stack(needed).max()))
    assert max(missed_beyond(item, calibration.guaranteed_scale) for item in slices) == 0
    assert fit(slices[:8], prior, inference, seed=0).guaranteed_scale is None


def test_a_picture_that_fails_loses_nothing_of_what_was_sampled(run, monkeypatch):
    def fail(*_):
        raise RuntimeError("no picture")

    monkeypatch.setattr(calibration_plots, "plot_calibration", fail)
    with pytest.raises(RuntimeError, match="no picture"):
        run.again(slices=1)
    assert read_calibration(run.sidecar).slices == 1
    written = {path.name for path in run.output.iterdir()}
    assert written == {"samples", "table.md", "cases.csv", "calibration_curve.csv", "sparsification.csv", "rings.csv"}


@pytest.mark.usefixtures("no_picture")
def test_the_same_seed_gives_the_same_tables_and_another_seed_others(run):
    def tables(seed):
        shutil.rmtree(run.output, ignore_errors=True)
        assert run.again(seed=seed, slices=1).code == 0
        return [(run.output / f"{name}.csv").read_bytes() for name in ("cases", "calibration_curve", "sparsification")]

    def sampled():
        # Before the scale, against the reference as it is, nothing is random but the samples.
        rows = rows_of(run.output / "cases.csv")
        return [row for row in rows if (row["stage"], row["reference"]) == ("before", "clean")]

    first, first_sampled = tables(4), sampled()
    assert tables(4) == first
    tables(5)
    assert sampled() != first_sampled


@pytest.mark.usefixtures("no_picture")
def test_at_most_so_many_slices_are_sampled_spread_over_the_volumes(run):
    sampled = []
    with recorded.listening(recorded.BEFORE_SAMPLES, lambda problem: sampled.append(problem.names[0])):
        assert run.again(slices=2).code == 0
    assert [(Path(name).name, number) for name, number in sampled] == [("v.h5", 0), ("a.h5", 0), ("b.h5", 0)]


def test_samples_are_known_by_all_that_they_depend_on(study):
    inference, energy = load_system(study.configuration).inference, load_trained(study.checkpoint, study.configuration)
    first, second = (case.problem for case in study.cases(study.test)[:2])
    known = fingerprint(first, energy, inference, seed=1)
    assert fingerprint(study.cases(study.test)[0].problem, energy, inference, seed=1) == known

    A = first.A
    problems = [
        second,
        replace(first, masked_kspace=1.001 * first.masked_kspace),
        replace(first, A=SenseOperator(-A.sensitivity_map, A.sampling_mask)),
        replace(first, A=A.fully_sampled()),
        replace(first, names=[("other.h5", 0)]),
    ]
    others = [fingerprint(problem, energy, inference, seed=1) for problem in problems]
    others.append(fingerprint(first, energy, inference, seed=2))
    with torch.no_grad():
        next(energy.parameters()).add_(1e-3)
    others.append(fingerprint(first, energy, inference, seed=1))
    assert len({known, *others}) == 1 + len(problems) + 2


def test_samples_are_known_by_what_the_energy_is_besides_its_weights(study):
    inference, problem = load_system(study.configuration).inference, study.cases(study.test)[0].problem
    sizes = {"hidden_channels": 4, "num_layers": 3}
    energies = [
        QuadraticEnergy(**sizes, weight=0.25),
        QuadraticEnergy(**sizes, weight=0.5),
        QuadraticEnergy(**sizes, weight=0.25, activation="silu"),
        ConvEnergy(**sizes),
        ConvEnergy(**sizes, top="smooth"),
        ConvEnergy(**sizes, top="smooth", top_width=2.0),
    ]
    for energy in energies:
        with torch.no_grad():
            for parameter in energy.parameters():
                parameter.zero_()
    assert len({fingerprint(problem, energy, inference, seed=1) for energy in energies}) == len(energies)


OTHER_VALUES = {float: 0.37, int: 7, str: "sense", float | None: 0.5, float | int | str | None: 0.5}
FREE = {"max_images": 7, "quantiles": [0.5], "save_samples": True}
"""What is done with samples, not what they are."""


def test_samples_are_known_by_every_setting_that_reaches_them_and_by_no_other(study):
    inference, energy = load_system(study.configuration).inference, load_trained(study.checkpoint, study.configuration)
    problem = study.cases(study.test)[0].problem

    def known(**changes):
        changed = replace(inference, **{key: value for key, value in changes.items() if key != "shared"})
        changed.shared = changes.get("shared", inference.shared)
        return fingerprint(problem, energy, changed, seed=1)

    values = {key: "bfloat16" if key == "convolutions" else OTHER_VALUES.get(kind) for key, kind in kinds_of(inference)}
    others = {known(**{key: value}) for key, value in values.items() if key not in FREE}
    of_all = {known(shared=replace(inference.shared, **{key: 0.37})) for key, _ in kinds_of(inference.shared)}
    assert len(others | of_all | {known()}) == len(values) - len(FREE) + len(of_all) + 1
    assert {known(**{key: value}) for key, value in FREE.items()} == {known()}


def kinds_of(settings):
    hints = get_type_hints(type(settings))
    return [(field.name, hints[field.name]) for field in fields(settings)]


def test_kept_samples_are_used_again_under_the_same_key_unless_the_file_is_damaged(tmp_path, draw):
    path, drawn = tmp_path / "samples" / "a.h5#0.pt", []

    def sample():
        drawn.append(Posterior.from_chains(draw(3, 10, 1, 5, 5, seed=len(drawn), dtype=torch.complex64)))
        return drawn[-1]

    first, again = kept_posterior(path, "key", sample), kept_posterior(path, "key", sample)
    assert len(drawn) == 1
    assert torch.equal(again.images, first.images)
    assert (again.diagnostics.num_chains, again.diagnostics.keep) == (3, 10)
    assert torch.equal(again.diagnostics.split_r_hat, first.diagnostics.split_r_hat)
    kept_posterior(path, "other", sample)
    assert len(drawn) == 2
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(kept_posterior(path, "other", sample).images, drawn[2].images)
    assert [found.name for found in path.parent.iterdir()] == ["a.h5#0.pt"]


def test_what_is_sampled_is_what_is_predicted(study):
    inference, energy = load_system(study.configuration).inference, load_trained(study.checkpoint, study.configuration)
    problem = study.cases(study.validation)[0].problem
    posterior = sample_posterior(problem, energy, inference, seed=1)
    with torch.no_grad():
        predicted = reconstruct(problem, energy, inference, seed=1).arrays
    assert torch.equal(problem.to_data_units(posterior.mean), predicted["mean"])
    assert torch.equal(problem.to_data_units(posterior.std), predicted["std"])


def test_bad_input_is_one_line_and_writes_no_calibration(run, study, tmp_path):
    few = tiny_direct.posterior(tiny_direct.configuration(), num_samples=2)
    few = tiny_direct.write_configuration(tmp_path / "few.yaml", few)
    only_map = tiny_direct.write_configuration(tmp_path / "map.yaml", tiny_direct.configuration())
    varnet = tiny_direct.write_configuration(tmp_path / "varnet.yaml", tiny_direct.configuration("demo_varnet"))
    for changes, words in (
        ({"slices": 0}, ["--slices is 0"]),
        ({"cfg": few}, ["model.inference.num_samples is 2", "3 or more"]),
        ({"cfg": only_map}, ["model.inference.name", "Map", "allowed"]),
        ({"cfg": varnet}, ["varnet.varnet.EndToEndVarNet"]),
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
