"""Tables of a benchmark: means, paired intervals, files."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from direct_deepen.evaluation.benchmark import SAMPLE_COLUMNS
from direct_deepen.evaluation.tables import (
    interval_over_volumes,
    markdown_table,
    quality_rows,
    read_results,
    results_table,
    write_csv,
)


def row(method, case, psnr, **changes):
    columns = {"ssim": 0.9, "nmse": 0.01, "seconds": 1.0, "gradient_evaluations": 10.0, "peak_memory_mb": 5.0}
    columns |= {"parameters": 1234567, "seed": 0, "tuned": math.nan} | dict.fromkeys(SAMPLE_COLUMNS, math.nan)
    return {"method": method, "mask": "2d4x", "case": case, "psnr": psnr} | columns | changes


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]


def test_a_table_has_the_columns_of_its_first_row_and_blanks_for_what_is_not_a_number():
    rows = [{"a": "text", "b": 0.5, "c": None}, {"c": 1234, "b": math.nan, "a": "other"}]
    head, rule, *body = cells(markdown_table(rows, {"b": ".2f", "c": ",d"}))
    assert head == ["a", "b", "c"]
    assert rule == 3 * ["---"]
    assert body == [["text", "0.50", ""], ["other", "", "1,234"]]


def test_methods_are_averaged_over_slices_in_the_order_they_first_appear():
    rows = [row("second", "a#0", 30.0), row("first", "a#0", 20.0), row("second", "a#1", 32.0, seconds=3.0, tuned=0.1)]
    second, first = quality_rows(pd.DataFrame(rows), "second")
    assert (second["method"], second["PSNR (dB)"], second["seconds a slice"]) == ("second", "31.00 ± 1.00", 2.0)
    assert (first["method"], first["PSNR (dB)"]) == ("first", "20.00 ± 0.00")


def test_every_problem_has_its_tables_and_methods_without_samples_no_line_in_the_second(tmp_path):
    samples = dict.fromkeys(SAMPLE_COLUMNS, 0.5) | {"num_samples": 16, "std_everywhere": 1.27, "error_everywhere": 1.0}
    rows = [row("deepen", "a#0", 30.0, tuned="noise", **samples), row("sense", "a#0", 25.0, mask="1d4x")]
    write_csv(tmp_path / "results.csv", rows)
    table = results_table(read_results([tmp_path / "results.csv"]), "deepen")
    first, rule, deepen, posterior, *_ = cells(table.partition("### 1d4x")[0])
    assert len(first) == len(rule) == len(deepen)
    assert deepen[-2:] == ["1,234,567", "noise"]
    assert posterior[0] == "posterior"
    assert "1.27 of deepen" in table
    assert [line[0] for line in cells(table.partition("### 1d4x")[2])] == ["method", "---", "sense"]


def test_a_method_that_errs_nowhere_has_an_infinite_score(tmp_path):
    write_csv(tmp_path / "rows.csv", [row("perfect", "a#0", math.inf), row("perfect", "a#1", math.inf)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = quality_rows(read_results([tmp_path / "rows.csv"]), "perfect")
    assert found["PSNR (dB)"] == "inf ± nan"


def test_the_interval_is_that_of_the_means_of_volumes():
    # Differences 0.5 and 1.5 in one volume, 2 and 1 in the others.
    mean, half = interval_over_volumes({"a.h5#0": 0.5, "a.h5#1": 1.5, "b#.h5#0": 2.0, "c.h5#0": 1.0})
    assert mean == pytest.approx(1.25)
    # Volumes 1, 2, 1: standard deviation √(1/3), over √3; 4.303 is the 97.5 % point of Student's t with two degrees.
    assert half == pytest.approx(4.303 * (1 / 3) ** 0.5 / 3**0.5, rel=1e-3)
    assert np.isnan(interval_over_volumes({"a.h5#0": 0.5, "a.h5#1": 1.5})[1])


def test_differences_are_paired_by_case_and_not_by_place():
    cases = ["a.h5#0", "a.h5#1", "b#.h5#0", "c.h5#0"]
    better = [row("better", case, psnr) for case, psnr in zip(cases, (3.0, 5.0, 7.0, 9.0), strict=True)]
    other = [row("other", case, psnr) for case, psnr in zip(cases[::-1], (8.0, 5.0, 3.5, 2.5), strict=True)]
    first, second = quality_rows(pd.DataFrame(better + other), "better")
    assert first["better − method (dB)"] == ""
    assert second["better − method (dB)"] == "+1.25 ± 1.43"
