"""A full disk: every command ends with one line that names the file, and leaves no part of one."""

import numpy as np
import pytest
from sampled_file import draw_samples, write_sampled

from direct_deepen.data.phantom import volume as phantom_volume


def posterior(study, out):
    return ["posterior", str(study.prediction / "a.posterior.h5"), "--html", str(out / "page.html")]


def posterior_picture(study, out):
    return ["posterior", str(study.prediction / "a.posterior.h5"), "--out", str(out / "slice.png")]


def posterior_nifti(study, out):
    return ["posterior", str(study.prediction / "a.posterior.h5"), "--nifti", str(out / "image.nii.gz")]


def region(study, out):
    labels = out.with_name("labels.npy")
    np.save(labels, np.ones((8, 9), dtype=np.uint8))
    path = write_sampled(out.with_name("a.posterior.h5"), draw_samples(1, 3, 1, 8, 9), chains=3)
    return ["region", str(path), "--mask", str(labels), "--csv", str(out / "regions.csv")]


def posterior_dicom(study, out):
    return ["posterior", str(study.prediction / "a.posterior.h5"), "--dicom", str(out / "series")]


def landscape(study, out):
    return [
        "landscape", str(study.checkpoint), "--cfg", str(study.configuration), "--data-root", study.test.name,
        "--out", str(out / "landscape.png"),
    ]  # fmt: skip


def calibrate(study, out):
    return [
        "calibrate", str(out), "--cfg", str(study.configuration), "--checkpoint", str(study.checkpoint),
        "--data-root", study.test.name, "--validation-root", study.validation.name,
    ]  # fmt: skip


def report(study, out):
    return ["report", str(study.checkpoint.parent), "--out", str(out / "report.html")]


def phantom_volumes(study, out):
    return ["phantom", str(out), "--volumes", "2", "--slices", "1", "--size", "32", "--coils", "2", "--seed", "1"]


COMMANDS = {
    posterior: "page.html",
    posterior_picture: "slice.png",
    posterior_nifti: "image_map.nii.gz",
    region: "regions.csv",
    posterior_dicom: "mean_0001.dcm",
    landscape: "landscape.png",
    calibrate: "validation",
    report: "report.html",
    phantom_volumes: "phantom_001_000.h5",
}
"""Every command that writes, and the file that it comes to first."""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, study, run_command, full_disk, command):
    out = tmp_path / "out"
    arguments = command(study, out)
    with full_disk():
        result = run_command(arguments)
    assert result.code == 2
    (line,) = result.errors
    assert line.startswith(f"direct-deepen: error: {out}")
    assert COMMANDS[command] in line
    assert line.endswith(": cannot be written: No space left on device")
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_the_benchmark_tells_of_a_full_disk_when_its_runs_are_done(tmp_path, study, run_command, full_disk):
    path = study.write(tmp_path / "study.yaml", "zero_filled")
    done = tmp_path / "out" / "runs" / "2d4x" / "zero_filled"
    done.mkdir(parents=True)
    header = "method,mask,case,psnr,ssim,nmse,seconds,gradient_evaluations,peak_memory_mb,parameters,seed,tuned\n"
    (done / "rows.csv").write_text(f"{header}zero_filled,2d4x,a.h5#0,20,0.5,0.1,1,0,1,0,0,nan\n")
    with full_disk():
        result = run_command(["benchmark", str(tmp_path / "out"), "--study", str(path)])
    assert result.code == 2
    told = f"direct-deepen: error: {tmp_path / 'out' / 'results.csv'}: cannot be written: No space left on device"
    assert result.errors == [told]
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["rows.csv"]


def test_volumes_that_were_whole_when_the_disk_was_full_stay(tmp_path, study, run_command, full_disk, monkeypatch):
    disk, written = full_disk(), []
    original = phantom_volume.write_fastmri_volume

    def full_after_the_first(path, *args, **kwargs):
        if written:
            disk.__enter__()
        written.append(path)
        original(path, *args, **kwargs)

    monkeypatch.setattr(phantom_volume, "write_fastmri_volume", full_after_the_first)
    result = run_command(phantom_volumes(study, tmp_path / "out"))
    disk.__exit__(None, None, None)
    assert result.code == 2
    (line,) = result.errors
    assert "phantom_001_001.h5: cannot be written" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["phantom_001_000.h5"]
