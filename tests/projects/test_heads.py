"""The comparison on heads: one training for all masks, a study of what has been trained, rows that add up."""

import json
from contextlib import chdir

import pandas
import pytest
import tiny_direct

from direct_deepen.evaluation.study import load_study
from projects.comparison.run import MASKS, masking
from projects.heads import report, run


@pytest.mark.parametrize("system", run.SYSTEMS)
def test_a_training_has_every_mask_at_the_size_of_heads(tmp_path, system):
    with chdir(tiny_direct.REPOSITORY):
        planned = run.training(tmp_path, system, 3)
        wanted = {mask: masking(mask)["accelerations"] for mask in MASKS}
    content = planned.configuration
    parts = content["training"]["datasets"]
    assert {part["text_description"]: part["transforms"]["masking"]["accelerations"] for part in parts} == wanted
    every = [*parts, *content["validation"]["datasets"], content["inference"]["dataset"]]
    assert all(part["transforms"]["augmentation"]["pad"] == [run.SIZE, run.SIZE] for part in every)
    # Slices of four masks would fill the memory.
    assert not planned.keep_slices
    assert planned.seed == 3


def test_the_study_has_the_weights_of_the_package_and_what_has_ended_and_no_more(tmp_path):
    with chdir(tiny_direct.REPOSITORY):
        for name, code in (("vsharp_0", 0), ("vsharp_1", 2), ("deepen_2", 0), ("varnet_0", None)):
            folder = tmp_path / name
            folder.mkdir()
            if code is not None:
                (folder / "ended.json").write_text(json.dumps({"code": code, "seconds": 1.0}))
        run.write_study(tmp_path)
        study = load_study(tmp_path / "table.yaml")
        iterations = run.configuration("vsharp")["training"]["num_iterations"]
    trained = {name for name, method in study.methods.items() if method.classical is None}
    assert trained == {"brain", "deepen_2", "vsharp_0"}
    assert study.methods["vsharp_0"].checkpoint == str(tmp_path / "vsharp_0" / f"model_{iterations - 1}.pt")
    assert set(study.problems) == set(MASKS)
    assert all(path.is_file() for path in study.problems.values())


def rows(method: str, psnr: float) -> pandas.DataFrame:
    others = dict.fromkeys(set(report.COLUMNS) - {"method", "mask", "case", "psnr"}, 0.5)
    found = [
        {"method": method, "mask": mask, "case": f"{volume}#0", "psnr": psnr + offset} | others
        for mask in MASKS
        for volume, offset in (("a.h5", -1.0), ("b.h5", 1.0))
    ]
    return pandas.DataFrame(found)[report.COLUMNS]


def test_rows_of_a_method_that_is_there_again_are_replaced_and_others_stay():
    known = report.merged(None, pandas.concat([rows("brain", 40.0), rows("vsharp_0", 30.0)]))
    both = report.merged(known, pandas.concat([rows("vsharp_0", 36.0), rows("vsharp_1", 38.0)]))
    assert both.groupby("method")["psnr"].mean().to_dict() == {"brain": 40.0, "vsharp_0": 36.0, "vsharp_1": 38.0}
    assert len(both) == 3 * len(MASKS) * 2


def test_the_table_has_means_over_slices_and_seeds_and_the_spread_over_seeds():
    lines = report.table(
        pandas.concat([rows("brain", 40.0), rows("vsharp_0", 36.0), rows("vsharp_1", 38.0)])
    ).splitlines()
    vsharp, brain = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
    assert vsharp[:3] == ["vsharp", "2", "37.00 ± 1.41 / 0.500"]
    assert vsharp[-2:] == ["37.00 / 0.500", "+3.00 ± 0.00"]
    assert brain[:3] == ["brain", "1", "40.00 / 0.500"]
    assert brain[-1] == ""
