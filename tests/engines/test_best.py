"""The checkpoint that is best by validation, and a training that ends for want of a better one."""

import json

import pytest
import tiny_direct
import torch

from direct_deepen.engines.best import BestCheckpoint
from direct_deepen.objectives.base import BestSettings

BEST = "model.objective.best"
NOT_A_NUMBER = float("nan")


@pytest.mark.parametrize(
    ("values", "lower", "best", "ends"),
    [
        ([20, 22, 21, 22], False, [0, 1], 3),
        ([20, 22, 21, 22], True, [0], 2),
        # The first of equal ones; NaN is never the best.
        ([NOT_A_NUMBER, 3, 3, 4], False, [1, 3], None),
        ([NOT_A_NUMBER, NOT_A_NUMBER], False, [], 1),
    ],
)
def test_the_best_is_told_and_the_end_comes_after_two_validations_without_a_better_one(
    tmp_path, values, lower, best, ends
):
    settings = BestSettings("fastmri_psnr", lower, patience=2)
    chosen = BestCheckpoint(settings, tmp_path, 0)
    found = []
    for position, value in enumerate(values):
        if chosen.add(10 * (position + 1), value):
            found.append(position)
        chosen.write()
        # Written and read again by a training that goes on from there, it says the same.
        chosen = BestCheckpoint(settings, tmp_path, 10 * (position + 1) + 1)
        if chosen.is_last:
            assert position == ends
            break
    assert found == best
    assert chosen.is_last == (ends is not None)


def test_what_is_validated_again_after_an_interruption_counts_once(tmp_path):
    settings = BestSettings("fastmri_psnr", patience=2)
    chosen = BestCheckpoint(settings, tmp_path, 0)
    for iteration, value in ((10, 20.0), (20, 25.0), (30, 24.0)):
        chosen.add(iteration, value)
    chosen.write()
    resumed = BestCheckpoint(settings, tmp_path, 16)
    assert resumed.add(20, 25.0)
    assert not resumed.add(30, 24.0)
    assert not resumed.is_last


def test_values_of_another_metric_are_named(tmp_path, one_line_error):
    (tmp_path / "model_best.json").write_text('{"fastmri_ssim": {"10": 0.5}}')
    with one_line_error("model_best.json", "fastmri_psnr", "delete it"):
        BestCheckpoint(BestSettings("fastmri_psnr"), tmp_path, 11)


# ---- In training


def configuration(iterations, **changes):
    config = tiny_direct.configuration(iterations=iterations, warm_start=3)
    steps = {"training.validation_steps": 1, "training.checkpointer.checkpoint_steps": 1}
    validation = tiny_direct.committed("demo_deepen")["validation"]["datasets"]
    config = tiny_direct.changed(config, steps | {"validation.datasets": validation, f"{BEST}.metric": "fastmri_psnr"})
    transforms = config["training"]["datasets"][0]["transforms"]
    return tiny_direct.changed(config, {"validation.datasets.0.transforms": transforms, **changes})


def test_the_best_checkpoint_is_the_one_of_the_best_value(tmp_path, volumes):
    config = configuration(10, **{f"{BEST}.metric": "fastmri_nmse", f"{BEST}.lower_is_better": True})
    run = tiny_direct.direct_train(tmp_path, config, volumes)
    (values,) = json.loads((run / "model_best.json").read_text()).values()
    assert list(values) == [str(iteration) for iteration in range(5, 10)]
    for iteration, value in values.items():
        scores = json.loads((run / f"metrics_val_validation_{iteration}.json").read_text()).values()
        mean = sum(score["fastmri_nmse_metric"] for score in scores) / len(scores)
        # DIRECT averages in single precision.
        assert value == pytest.approx(mean, rel=1e-6)
    best = min(values, key=values.get)
    found, expected = tiny_direct.weights_of(run, "best"), tiny_direct.weights_of(run, int(best))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert (run / "last_model.txt").read_text() == "9"


def test_training_ends_early_with_a_checkpoint_and_is_not_gone_on_with(tmp_path, volumes, caplog):
    # A rate this small changes no digit of the metric: nothing is better than the first.
    changes = {f"{BEST}.patience": 2, "training.lr": 1e-20, "training.checkpointer.checkpoint_steps": 100}
    run = tiny_direct.direct_train(tmp_path, configuration(12, **changes), volumes)
    assert (run / "last_model.txt").read_text() == "7"
    assert sum("Training ends at iteration 7" in message for message in caplog.messages) == 1
    tiny_direct.direct_train(tmp_path, configuration(12, **changes), volumes, resume=True)
    assert sum("training has ended" in message for message in caplog.messages) == 1
    assert (run / "last_model.txt").read_text() == "7"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({f"{BEST}.metric": "fastmri_pnsr"}, f"{BEST}.metric is 'fastmri_pnsr'"),
        ({f"{BEST}.metric": "", f"{BEST}.patience": 3}, f"{BEST}.metric is ''"),
        ({f"{BEST}.patience": -1}, f"{BEST}.patience"),
        ({"validation.datasets": []}, "validation.datasets is empty"),
    ],
)
def test_a_choice_that_validation_cannot_make_is_refused_before_training(
    tmp_path, volumes, exit_with_one_line, changes, word
):
    with exit_with_one_line(word):
        tiny_direct.direct_train(tmp_path, configuration(8, **changes), volumes)
