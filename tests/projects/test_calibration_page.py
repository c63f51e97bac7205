"""What the page on calibration says is what the committed results hold."""

import pandas
import pytest
import tiny_direct

from projects.calibration.report import coverage_rows, ring_rows

PROJECT = tiny_direct.REPOSITORY / "projects" / "calibration"
RESULTS = PROJECT / "results"


@pytest.fixture(scope="module")
def cases():
    return pandas.read_csv(RESULTS / "results.csv")


def test_the_tables_of_the_page_are_those_of_the_results(cases):
    page = (PROJECT / "README.md").read_text(encoding="utf-8")
    tables = (RESULTS / "tables.md").read_text(encoding="utf-8")
    for rows in (coverage_rows(cases), ring_rows(pandas.read_csv(RESULTS / "rings.csv"))):
        assert rows
        for row in rows:
            line = [line for line in tables.splitlines() if line.split(" | ")[:3] == _start(row)]
            assert any(all(str(cell) in found for cell in row.values()) for found in line)
    for line in tables.splitlines():
        if line.startswith("| "):
            assert line in page


def _start(row):
    return [f"| {row['set']}", row["mask"], row["factors"]]


def test_regions_that_intervals_missed_are_held_once_rings_are_fitted(cases):
    means = cases.groupby(["set", "mask", "stage", "pixels"])["coverage_90"].mean()
    for (group, mask), found in means.groupby(level=["set", "mask"]):
        by_stage = found.droplevel(["set", "mask"]).unstack("stage")
        distance = (by_stage - 0.9).abs().mean()
        assert distance["after"] < distance["before"], (group, mask)
        # What the page says was aimed at.
        assert by_stage["after"].between(0.85, 0.95).all(), (group, mask)


def test_what_was_fitted_on_was_not_tested_on(cases):
    # Phantoms are named by the seed of their set.
    assert set(cases["set"]) == {"phantom"}
    assert {case.split("_")[1] for case in cases["case"]} == {"003"}
