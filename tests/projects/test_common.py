"""Many trainings: each on a core, in an order that weights to start from allow, each once."""

import pytest
import tiny_direct

from direct_deepen.errors import DeepenError
from projects.common import Training, exit_code, run_trainings, seconds_spent


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """One that starts from the weights of another, which comes after it in the list, and one that is refused."""
    folder = tmp_path_factory.mktemp("trainings")
    data = folder / "data"
    for name in ("training", "validation"):
        tiny_direct.write_volumes(data / name, ["a", "b"], seed=1)
    config = tiny_direct.configuration("phantom_pnp_ista", iterations=6)
    bad = tiny_direct.changed(config, {"model.objective.noise_std": -1.0})
    first = Training(folder / "first", config, data, seed=3)
    second = Training(folder / "second", config, data, seed=4, initialization=folder / "first" / "model_5.pt")
    refused = Training(folder / "refused", bad, data)
    with pytest.raises(DeepenError, match=r"1 of the trainings failed: see .*refused.output\.log"):
        run_trainings([second, refused, first])
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


def test_what_has_ended_is_not_repeated_and_what_was_killed_goes_on(trainings):
    killed, *others = (training.folder / "ended.json" for training in trainings)
    killed.unlink()
    before = [path.stat().st_mtime_ns for path in others]
    run_trainings(trainings)
    assert exit_code(killed.parent) == 0
    assert "model_5.pt" in (killed.parent / "output.log").read_text()
    assert before == [path.stat().st_mtime_ns for path in others]


def test_a_start_that_nothing_makes_is_named(tmp_path, one_line_error):
    lost = Training(tmp_path / "lost", {}, tmp_path, initialization=tmp_path / "none.pt")
    with one_line_error("none.pt", "no training makes it"):
        run_trainings([lost])
