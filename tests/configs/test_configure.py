"""The command ``configure``: what it writes is the configuration with some values changed, and DIRECT reads it."""

import pytest
import tiny_direct
import yaml
from omegaconf import OmegaConf

from direct_deepen.cli.main import main

FOLDER = tiny_direct.REPOSITORY / "configs"
SOURCE = FOLDER / "deepen_2d4x.yaml"


def configure(output, *arguments, source=SOURCE):
    assert main(["configure", str(source), str(output), *map(str, arguments)]) == 0
    return OmegaConf.load(output)


def test_without_changes_it_is_the_same_configuration(tmp_path):
    assert configure(tmp_path / "same.yaml") == OmegaConf.load(SOURCE)


def test_transforms_change_for_training_validation_and_inference_alike(tmp_path):
    output = tmp_path / "folder" / "changed.yaml"
    changed = configure(
        output,
        *("transforms.masking.accelerations=[6.0]", "transforms.augmentation.pad=[64, 64]", "training.lr=1e-3"),
        *("--with", FOLDER / "masks" / "1d4x.yaml"),
    )
    expected = OmegaConf.load(SOURCE)
    expected.training.lr = 0.001
    for dataset in (*expected.training.datasets, *expected.validation.datasets, expected.inference.dataset):
        dataset.transforms.augmentation.pad = [64, 64]
        # The command line counts after the file.
        dataset.transforms.masking = {
            "name": "FastMRIEquispaced", "accelerations": [6.0], "center_fractions": [0.08]
        }  # fmt: skip
    assert changed == expected
    text = output.read_text(encoding="utf-8")
    assert text.count("FastMRIEquispaced") == 1
    assert text.startswith(f"# {SOURCE} with {FOLDER}/masks/1d4x.yaml, transforms.masking.accelerations=[6.0],")


def test_of_several_files_the_last_one_counts_and_direct_builds_what_comes_of_them(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"model": {"hidden_channels": 5, "inference": {"max_iterations": 3}}}))
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"model": {"inference": {"max_iterations": 7}}}))
    configure(tmp_path / "changed.yaml", "--with", own, "--with", other)
    engine = tiny_direct.build_environment(tmp_path, tmp_path / "changed.yaml").engine
    assert engine.inference.max_iterations == 7
    assert engine.objective.warm_start_iterations == 4000
    assert {parameter.shape[0] for parameter in engine.model.parameters()} == {5, 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["model.inference.max_iteratons=3"],
            ["model.inference.max_iteratons", "max_iterations"],
        ),
        # In the wrong section.
        (["model.lr=3"], ["model.lr: no such key", "training.lr"]),
        (["transforms.maskng.name=Radial"], ["transforms.maskng: no such key", "transforms.masking"]),
        (["lr=1"], ["lr: no such key", "training.lr"]),
        (["training.lr=fast"], ["training.lr", "'fast'"]),
        (["transforms.padding_eps=x"], ["transforms.padding_eps", "'x'"]),
        (["model.inference.max_iterations=0"], ["model.inference.max_iterations is 0; allowed"]),
        (["training.datasets=[3]"], ["training.datasets=[3]"]),
        (["training=3"], ["training=3"]),
        (["model.model_name=deepen.priors.MuESLI"], ["model.model_name is 'deepen.priors.MuESLI'"]),
        (["inference.dataset.name=SlowMRI"], ["inference.dataset.name is 'SlowMRI'"]),
        (["faster"], ["'faster' is no change; allowed: key=value"]),
        (["transforms.masking.accelerations=[6.0"], ["transforms.masking.accelerations=[6.0"]),
        (["--with", "missing.yaml"], ["missing.yaml: no such file"]),
        (["--with", "LICENSE"], ["LICENSE"]),
    ],
    ids=lambda value: value[-1] if value[0].startswith("--") or "=" in value[0] else None,
)
def test_what_cannot_be_changed_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tiny_direct.REPOSITORY)
    output = tmp_path / "never.yaml"
    assert main(["configure", str(SOURCE), str(output), *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("direct-deepen: error: ")
    assert all(word in lines[-1] for word in words)
    assert not any(line.startswith("Traceback") for line in lines)
    assert not output.exists()
