"""What the page on calibration says is what the committed results hold."""

import csv
import re

import numpy as np
import pytest
import tiny_direct

from direct_deepen.engines.calibration_file import read_calibration
from projects.comparison import run

PROJECT = tiny_direct.REPOSITORY / "projects" / "calibration"
RESULTS = sorted((PROJECT / "results").glob("*/cases.csv"))
ALLOWED = (0.85, 0.95)
"""What the page says was aimed at."""


@pytest.fixture(params=RESULTS, ids=lambda path: path.parent.name)
def folder(request):
    return request.param.parent


def coverages(folder, stage):
    """Coverage of 90 % intervals inside the object, against the reference as it is, by slice."""
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["stage"], row["reference"], row["pixels"]) == (stage, "clean", "object")
        ]
    assert rows
    assert len({row["case"] for row in rows}) == len(rows)
    return {row["case"]: float(row["coverage_90"]) for row in rows}


def test_there_are_results_of_the_phantoms_and_of_the_weights_of_the_package():
    assert [path.parent.name for path in RESULTS] == ["phantom", "pretrained"]


def test_intervals_of_90_per_cent_hold_as_much_of_the_object_on_test_volumes_once_they_are_scaled(folder):
    mean = np.mean(list(coverages(folder, "after").values()))
    assert ALLOWED[0] <= mean <= ALLOWED[1]
    # Nearer to the level than without the scale, or the scale would be of no use.
    assert abs(mean - 0.9) < abs(np.mean(list(coverages(folder, "before").values())) - 0.9)


def test_the_scale_was_fitted_on_other_volumes(folder):
    seeds = {name: seed for seed, name in enumerate(run.VOLUMES, start=1)}
    # Phantoms are named by the seed of their set.
    assert {case.split("_")[1] for case in coverages(folder, "after")} == {f"{seeds['test']:03d}"}
    (path,) = folder.glob("*.calibration.yaml")
    calibration = read_calibration(path)
    assert calibration.level == 0.9
    assert calibration.volumes == run.VOLUMES["validation"][0]


def test_the_tables_of_the_page_are_those_of_the_results(folder):
    table = (folder / "table.md").read_text(encoding="utf-8")
    inside = table.partition("### All pixels")[0]
    (path,) = folder.glob("*.calibration.yaml")
    scale = f"{read_calibration(path).std_scale:.3f}"
    page = (PROJECT / "README.md").read_text(encoding="utf-8")
    for stage, printed in (("before", "none"), ("after", scale)):
        (line,) = re.findall(rf"^\| clean \| {re.escape(printed)} .*$", inside, flags=re.MULTILINE)
        shown = float(line.split("|")[4].split("±")[0])
        assert shown == pytest.approx(100 * np.mean(list(coverages(folder, stage).values())), abs=0.06)
        assert line in page
