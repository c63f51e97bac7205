"""The study of stability: all its configurations are valid, and say what their recipe does."""

from contextlib import chdir

import pytest
import tiny_direct

from direct_deepen.engines.models import QuadraticEnergyConfig
from direct_deepen.engines.settings import system_of
from projects.stability import run

RUNS = [one for study in ("seeds", "remedies", "noise", "long") for one in run.runs_of(study) if one.seed == 0]


def objective(one):
    with chdir(tiny_direct.REPOSITORY):
        section = run.configuration(one)["model"]
    assert set(section) <= set(QuadraticEnergyConfig.__dataclass_fields__)
    return system_of(section).objective


@pytest.mark.parametrize("one", RUNS, ids=lambda one: one.folder)
def test_every_configuration_of_the_study_is_valid(one):
    assert objective(one).guard.max_rollbacks == (0 if one.folder.startswith(("remedies", "noise")) else 10)


@pytest.mark.parametrize(
    ("name", "start", "num_steps", "step_size"),
    [
        ("paper", "noise", 100, 1.0),
        ("only adapting step", "noise", 100, None),
        ("only persistent chains", "persistent", 15, 1.0),
        ("without persistent chains", "noise", 100, None),
        ("without adapting step", "persistent", 15, 1.0),
        ("with SENSE starts for persistent chains", "sense", 15, None),
    ],
)
def test_a_recipe_changes_the_chains_it_names(name, start, num_steps, step_size):
    (one,) = (one for one in RUNS if one.name == name)
    chains = objective(one).chains
    # None of them has steps of MAP before its chains.
    assert (chains.start, chains.num_steps, chains.step_size, chains.map_steps) == (start, num_steps, step_size, 0)
