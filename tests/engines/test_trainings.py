"""Many trainings: each on a core, in an order that weights to start from allow, each once."""

import os

import pytest
import tiny_direct
import torch

from direct_deepen.errors import DeepenError
from direct_deepen.trainings import Training, exit_code, run_trainings, seconds_spent

# The tests have used threads before they fork; a training forks before it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory, volumes):
    folder = tmp_path_factory.mktemp("data")
    for name in ("training", "validation"):
        (folder / name).symlink_to(volumes)
    return folder


@pytest.fixture(scope="module")
def trainings(tmp_path_factory, data):
    """One that starts from the weights of another, which comes after it in the list, and one that is refused."""
    folder = tmp_path_factory.mktemp("trainings")
    config = tiny_direct.configuration("phantom_pnp_ista", iterations=6)
    bad = tiny_direct.changed(config, {"model.objective.noise_std": -1.0})
    first = Training(folder / "first", config, data, seed=3)
    second = Training(folder / "second", config, data, seed=4, initialization=folder / "first" / "model_5.pt")
    refused = Training(folder / "refused", bad, data)
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    with pytest.raises(DeepenError, match=r"1 of the trainings failed: see .*refused.output\.log"):
        run_trainings([second, refused, first])
    assert torch.get_num_threads() == threads
    assert os.sched_getaffinity(0) == cores
    return first, second, refused


def test_all_end_and_tell_how(trainings):
    assert [exit_code(training.folder) for training in trainings] == [0, 0, 2]
    assert all(seconds_spent(training.folder) > 0 for training in trainings)
    assert "model.objective.noise_std is -1.0" in (trainings[2].folder / "output.log").read_text()


def test_a_training_starts_from_the_weights_it_names(trainings):
    first, second, _ = trainings
    assert f"Initializing from {second.initialization}" in (second.folder / "output.log").read_text()
    start, end = tiny_direct.weights_of(first.folder, 5), tiny_direct.weights_of(second.folder, 5)
    steps = [float((end[key] - start[key]).abs().max()) for key in start]
    # Five steps of Adam at less than the rate of the configuration, from there.
    assert 0 < max(steps) < 6 * first.configuration["training"]["lr"]


def test_what_has_ended_is_not_repeated(trainings):
    before = {training.folder: (training.folder / "ended.json").stat().st_mtime_ns for training in trainings}
    run_trainings(trainings)
    assert before == {folder: (folder / "ended.json").stat().st_mtime_ns for folder in before}


def test_one_that_was_killed_has_not_ended_and_goes_on(trainings):
    first = trainings[0]
    (first.folder / "ended.json").unlink()
    assert exit_code(first.folder) is None
    run_trainings([first])
    assert exit_code(first.folder) == 0
    assert "model_5.pt" in (first.folder / "output.log").read_text()


def test_a_start_that_nothing_makes_is_named(tmp_path, trainings, one_line_error):
    lost = Training(
        tmp_path / "lost", trainings[0].configuration, trainings[0].data, initialization=tmp_path / "none.pt"
    )
    with one_line_error("none.pt", "no training makes it"):
        run_trainings([lost])
