"""The study of measured slices, on a phantom that stands in for one: its files, its tuning, its tables and pictures."""

import shutil
import sys

import numpy as np
import pandas
import pytest
import tiny_direct
import torch

from direct_deepen import DeepenError
from direct_deepen.data.phantom.volume import brain_volume
from direct_deepen.evaluation.classical import REGULARIZATIONS, sense
from direct_deepen.evaluation.metrics import quality
from projects.measured import report, run

SIZE, COILS = 64, 12


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    volume = brain_volume(np.random.default_rng(2), num_slices=1, size=SIZE, num_coils=COILS, noise_std=0.01)
    np.save(folder / "head.npy", volume.kspace[0])
    return folder


@pytest.fixture
def written(tmp_path, monkeypatch, slices):
    """The output of a run with one mask and MAP of the weights of the package."""
    masks = tmp_path / "masks"
    masks.mkdir()
    shutil.copy(tiny_direct.REPOSITORY / "configs" / "masks" / "2d4x.yaml", masks)
    monkeypatch.setattr(run, "MASKS", masks)
    configuration = tiny_direct.REPOSITORY / "configs" / "pretrained_2d4x.yaml"
    arguments = [str(slices), str(tmp_path / "out"), "--system", "shipped", str(configuration)]
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    threads = torch.get_num_threads()
    run.main()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.csv")}
    run.main()
    torch.set_num_threads(threads)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.csv")}
    return tmp_path / "out"


def test_every_method_has_a_row_and_the_page_its_table_and_picture(written, tmp_path, monkeypatch):
    found = pandas.concat([pandas.read_csv(path) for path in written.rglob("*.csv")]).set_index("method")
    assert set(found.index) == {"zero_filled", "sense", "l1_wavelet", "total_variation", "shipped_map"}
    # The phantom is of the kind that the weights were trained on.
    assert found["psnr"].idxmax() == "shipped_map"
    # ε = √2 η, from a centre of seven samples: at most 1.6 times too large.
    assert 0.9 < found.loc["shipped_map", "noise_std"] / (2**0.5 * 0.01) < 1.6
    assert found.loc["sense", "tuned"] in [pytest.approx(value, rel=1e-4) for value in REGULARIZATIONS]
    monkeypatch.setattr(sys, "argv", ["report", str(written), str(tmp_path / "results")])
    report.main()
    table = (tmp_path / "results" / "tables.md").read_text()
    assert f"| head (12) | {found.loc['zero_filled', 'psnr']:.2f} | {found.loc['sense', 'psnr']:.2f} |" in table
    assert (tmp_path / "results" / "head_2d4x.png").stat().st_size > 10_000


def test_the_walk_over_weights_ends_at_the_best_of_all(slices):
    ((name, kspace),) = run.read_slices(slices)
    mask = run.draw_masks(SIZE, SIZE, seed=0)["2d6x"]
    case = run.case_of(name, kspace, run.coil_maps(kspace), mask, "field_of_view")
    scores = [
        quality(sense(case.problem.A, case.problem.masked_kspace, regularization=value)[0], case.reference[0]).psnr
        for value in REGULARIZATIONS
    ]
    columns, _ = run.by_classical("sense", case)["sense"]
    assert columns["tuned"] == REGULARIZATIONS[int(np.argmax(scores))]
    assert columns["psnr"] == max(scores)


def test_masks_of_a_file_are_cut_to_the_slice_or_left_out(tmp_path):
    masks = {"large": np.arange(100).reshape(10, 10) % 7 == 0, "small": np.ones((4, 4), dtype=bool)}
    np.savez(tmp_path / "masks.npz", **masks)
    (found,) = run.masks_of_file(tmp_path / "masks.npz", 6, 8).values()
    np.testing.assert_array_equal(found.numpy(), masks["large"][2:8, 1:9])


def test_what_is_no_slice_is_named(tmp_path):
    with pytest.raises(DeepenError, match=r"no \.npy and no \.h5 file"):
        list(run.read_slices(tmp_path))
    np.save(tmp_path / "image.npy", np.ones((8, 8)))
    with pytest.raises(DeepenError, match=r"image\.npy: shape \(8, 8\) and dtype float64; allowed: complex"):
        list(run.read_slices(tmp_path))
