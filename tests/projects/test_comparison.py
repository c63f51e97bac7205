"""The comparison: its studies are valid, its trainings share data, and its tables are what their captions say."""

from contextlib import chdir
from types import SimpleNamespace

import pytest
import tiny_direct
import torch
import yaml

from direct_deepen.engines.trained import load_system
from direct_deepen.evaluation.study import load_study
from projects.comparison import report, run


@pytest.mark.parametrize("full_size", [False, True])
def test_the_studies_name_what_the_trainings_write(tmp_path, full_size):
    with chdir(tiny_direct.REPOSITORY):
        plan = run.Plan(tmp_path, tmp_path / "data", full_size, "espirit" if full_size else "direct")
        plan.write_studies()
        first, second = (load_study(tmp_path / f"table{number}.yaml") for number in (1, 2))
        assert all(path.is_file() for study in (first, second) for path in study.problems.values())
        for planned in first.runs() + second.runs():
            method = planned.method
            if method.configuration is None or planned.name.startswith(run.HALF_STEP):
                continue
            assert method.configuration.is_file()
            weights = planned.path(method.checkpoint)
            # The last iteration of the training that the plan makes there.
            system, trained = weights.parent.name, weights.parent.parent.name
            training = plan.training(system, trained)
            assert training.folder == weights.parent
            iterations = training.configuration["training"].get("num_iterations", 50000)
            assert weights.name == f"model_{iterations - 1}.pt"
            if system not in run.OF_DIRECT:
                assert training.configuration["model"]["coil_maps"] == plan.coil_maps
    # Equally many trials wherever something is tuned, and nothing where masks are exchanged.
    tunings = [method.tune for method in first.methods.values() if method.tune is not None]
    assert {len(tuning.values) for tuning in tunings} == {17}
    assert all(method.tune is None for method in second.methods.values())
    assert first.test == second.test


def test_elder_with_half_its_step_has_twice_the_iterations_and_else_the_same_weights(tmp_path):
    with chdir(tiny_direct.REPOSITORY):
        plan = run.Plan(tmp_path, tmp_path / "data")
        plan.write_studies()
        study = load_study(tmp_path / "table2.yaml")
        weights = {"step_size.logarithm": torch.tensor(0.5), "other": torch.ones(2)}
        for mask in run.MISMATCHED:
            path = plan.checkpoint("elder", mask)
            path.parent.mkdir(parents=True)
            torch.save({"model": weights}, path)
        plan.write_half_steps()
        steps = load_system(plan.source("elder")).inference.num_steps
    methods = {name: method for name, method in study.methods.items() if name.startswith(run.HALF_STEP)}
    assert len(methods) == 3
    for method in methods.values():
        halved = torch.load(method.checkpoint, weights_only=True)["model"]
        assert float(halved["step_size.logarithm"].exp()) == pytest.approx(0.5 * float(torch.tensor(0.5).exp()))
        assert torch.equal(halved["other"], weights["other"])
        assert yaml.safe_load(method.configuration.read_text())["model"]["inference"]["num_steps"] == 2 * steps


def test_every_problem_has_its_mask_and_the_radial_one_is_trained_on_by_nothing(tmp_path):
    with chdir(tiny_direct.REPOSITORY):
        plan = run.Plan(tmp_path, tmp_path / "data")
        plan.write_studies()
    names = {}
    for path in (tmp_path / "problems").iterdir():
        masking = yaml.safe_load(path.read_text())["inference"]["dataset"]["transforms"]["masking"]
        names[path.stem] = (masking["name"], masking["accelerations"])
    assert names == {
        "2d4x": ("Gaussian2D", [4.0]), "2d6x": ("Gaussian2D", [6.0]),
        "1d2x": ("FastMRIEquispaced", [2.0]), "1d4x": ("FastMRIEquispaced", [4.0]), "radial": ("Radial", [4.0]),
    }  # fmt: skip
    assert "radial" not in run.MASKS


def rows(mask, method, psnr):
    return [
        SimpleNamespace(method=method, mask=mask, case=f"v{i}.h5#0", psnr=value, ssim=0.9)
        for i, value in enumerate(psnr)
    ]


def test_a_drop_is_what_another_training_mask_costs():
    masks = ("2d4x", "2d6x", "1d2x")
    cells = {}
    for used in (*masks, "radial"):
        cells[used, "sense"] = rows(used, "sense", [20.0, 21.0])
        for trained in masks:
            # DEEPEN loses 0.5 dB wherever masks differ, ELDER 1 and 2 dB on the two volumes.
            loss = 0.0 if trained == used else 1.0
            cells[used, f"deepen_{trained}"] = rows(used, f"deepen_{trained}", [30 - 0.5 * loss, 32 - 0.5 * loss])
            cells[used, f"elder_{trained}"] = rows(used, f"elder_{trained}", [30 - loss, 31 - 2 * loss])
            cells[used, f"elder_half_step_{trained}"] = rows(used, f"elder_half_step_{trained}", [30.0, 31.0])
    text = report.table2(cells)
    drops = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in text.splitlines() if line.startswith("| ")}
    assert [cell.strip() for cell in drops["deepen"]] == 7 * ["+0.50 ± 0.00"]
    assert all(cell.strip().startswith("+1.50 ± ") for cell in drops["elder"])
    assert all(cell.strip() == "+0.00 ± 0.00" for cell in drops["elder_half_step"])
    assert "Drop of elder minus drop of DEEPEN, mean of the six: +1.00 ± " in text
    assert "Drop of elder_half_step minus drop of DEEPEN, mean of the six: -0.50 ± 0.00" in text


def test_the_last_column_of_table_one_is_the_mean_over_masks():
    cells = {}
    for number, mask in enumerate(("2d4x", "2d6x", "1d2x", "1d4x")):
        cells[mask, "deepen"] = rows(mask, "deepen", [30.0, 31.0])
        cells[mask, "muse"] = rows(mask, "muse", [30.0 - number, 31.0 - number])
    cells["2d4x", "mol"] = rows("2d4x", "mol", [29.0, 29.0])
    table, note = report.table1(cells).split("\n\n")
    assert "`muse` is trained with `image_energy_weight: 0.3`" in note
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()}
    assert "+1.50 ± 0.00" in lines["muse"]
    # No mean over masks that were not all done.
    assert lines["mol"].rstrip().endswith("|  |")
