"""The report: one page with curves, tables and pictures of several runs, whatever their names hold."""

import base64
import csv
import json
import re

import numpy as np
import pytest
import tiny_direct

from direct_deepen.cli.main import main
from direct_deepen.pages.report import mean_text, summary
from direct_deepen.pages.training_curves import TITLES, plot_curves, read_curves, shown_curves

TABLE = "method,case,psnr\ndeepen,a#0,32.0\ndeepen,a#1,34.0\n<b>x</b>,a#0,\n<b>x</b>,a#1,20.0\n"


@pytest.fixture
def runs(tmp_path):
    training = tmp_path / "deepen"
    training.mkdir()
    rows = [{"iteration": i, "loss": 1.0 / (1 + i), "train/curvature": 0.2} for i in range(0, 60, 20)]
    (training / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (training / "config.yaml").write_text("model:\n  noise_std: 0.01\n")
    results = tmp_path / "results"
    results.mkdir()
    (results / "results.csv").write_text(TABLE)
    (results / "comparison.png").write_bytes(plot_curves({"a": {0: 0.0, 1: 1.0}}))
    return [training, results]


def test_one_page_has_curves_tables_pictures_and_configurations(tmp_path, runs, capsys):
    out = tmp_path / "new" / "report.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    page = out.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["Training", "deepen", "results"]
    # Two curves and a picture, all inside the page.
    assert page.count('src="data:image/png;base64,') == 3
    assert "curvature along the chains" in page
    assert "<td>33.00 ± 1.00</td>" in page
    assert "noise_std: 0.01" in page
    # Text is text, even where it looks like HTML.
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_curves_are_written_as_a_table_with_a_row_for_every_iteration_of_a_run(tmp_path, runs):
    table = tmp_path / "new" / "curves.csv"
    page = str(tmp_path / "report.html")
    assert main(["report", *map(str, runs), "--out", page, "--csv", str(table)]) == 0
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["run", "iteration", "loss", "train/curvature"]
    assert [row["iteration"] for row in rows] == ["0", "20", "40"]
    # As they were logged, to the last digit.
    assert [float(row["loss"]) for row in rows] == [1.0 / (1 + iteration) for iteration in (0, 20, 40)]
    assert {row["run"] for row in rows} == {"deepen"}


def test_a_table_of_no_training_is_refused_in_one_line(tmp_path, runs, capsys):
    table = tmp_path / "curves.csv"
    assert main(["report", str(runs[1]), "--out", str(tmp_path / "report.html"), "--csv", str(table)]) == 2
    assert "--csv: none of the folders" in capsys.readouterr().err
    assert not table.exists()


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A run of DIRECT: six iterations of score matching, six contrastive ones, and validations at 8 and 11."""
    folder = tmp_path_factory.mktemp("training")
    config = tiny_direct.configuration(iterations=12, warm_start=6)
    validation = {**config["training"]["datasets"][0], "text_description": "brains"}
    changes = {"validation.datasets": [validation], "training.validation_steps": 4, "model.inference.max_iterations": 3}
    data = tiny_direct.write_volumes(folder / "data", ["a", "b"])
    return tiny_direct.direct_train(folder, tiny_direct.changed(config, changes), data)


def test_a_training_of_direct_has_all_curves_with_a_point_for_every_line_of_its_log(tmp_path, training):
    assert main(["report", str(training), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert captions == [title.format("brains") for title in TITLES.values()]
    shown = shown_curves({"run": read_curves(training)})
    drawn = [base64.b64decode(picture) for picture in re.findall('src="data:image/png;base64,(.*?)"', page)]
    assert drawn == [plot_curves(found) for _, found in shown]
    curves = {title: found["run"] for title, found in shown}
    assert list(curves) == captions

    lines = [json.loads(line) for line in (training / "metrics.json").read_text().splitlines()]
    for key, title in TITLES.items():
        if not key.startswith("val/"):
            points = {line["iteration"]: line[key] for line in lines if key in line}
            assert curves[title] == points
    # DIRECT logs from iteration 5 on, and the contrastive phase begins with iteration 6.
    assert list(curves["loss"]) == list(range(5, 12))
    for title in ("energy gap E⁺ − E⁻", "curvature along the chains", "Langevin step τ"):
        assert list(curves[title]) == list(range(6, 12))

    # Validation: what DIRECT wrote beside the log of every volume.
    scores = {}
    for path in training.glob("metrics_val_brains_*.json"):
        scores[int(path.stem.rpartition("_")[2])] = [
            volume["fastmri_psnr_metric"] for volume in json.loads(path.read_text()).values()
        ]
    psnr = curves["PSNR (volume maximum) on brains (dB)"]
    assert list(psnr) == sorted(scores)
    assert set(scores) == {8, 11}
    np.testing.assert_allclose(
        list(psnr.values()), [np.mean(scores[iteration]) for iteration in sorted(scores)], rtol=1e-6
    )


def test_a_table_of_slices_is_one_of_means():
    rows = [
        {"method": "a", "case": case, "psnr": psnr, "note": ""} for case, psnr in (("v#0", "30.0"), ("v#1", "32.0"))
    ]
    assert summary(rows) == [{"method": "a", "psnr": "31.00 ± 1.00"}]
    # Rows that are no slices stay as they are.
    assert summary([{"method": "a", "psnr": "30.25"}]) == [{"method": "a", "psnr": "30.25"}]
    assert mean_text(np.array([np.nan, 582735.0])) == "582,735"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], ["none", "no such folder"]),
        (["empty"], ["empty", "neither metrics.json"]),
        (["damaged"], ["damaged/results.csv", "equally long rows"]),
        (["headless"], ["headless/results.csv", "equally long rows"]),
        (["deepen", "other/deepen"], ["deepen, deepen", "different names"]),
    ],
)
def test_what_cannot_be_reported_is_one_line(tmp_path, runs, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    for name, text in (("damaged", "a,b\n1\n"), ("headless", "a,b\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.csv").write_text(text)
    (tmp_path / "other" / "deepen").mkdir(parents=True)
    out = tmp_path / "report.html"
    assert main(["report", *(str(tmp_path / name) for name in arguments), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)
    assert not out.exists()
