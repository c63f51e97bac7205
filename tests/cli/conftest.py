"""What the tests of the commands share: data, a trained energy, its prediction; helpers are those of the engine."""

import logging
import shutil
import sys
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from direct_deepen.cli.main import main
from direct_deepen.data.cases import Case, cases, inference_dataset

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))

import tiny_direct


@dataclass(frozen=True)
class Study:
    """All that the commands read.

    Attributes
    ----------
    folder
        Where commands run: masks follow from the paths of volumes, which are given relative to it.
    configuration
        The file that the prediction was made with.
    test, validation
        Folders of volumes: ``a`` and ``b``, two slices each, and ``v``.
    prediction
        Output of ``direct predict`` on the test data, with a posterior.
    checkpoint
        Its weights.
    """

    folder: Path
    configuration: Path
    test: Path
    validation: Path
    prediction: Path
    checkpoint: Path

    def cases(self, data: Path, configuration: Path | None = None, **options: Any) -> list[Case]:
        """The problems of a folder of volumes."""
        with chdir(data.parent):
            return list(cases(inference_dataset(configuration or self.configuration, Path(data.name), **options)))

    def methods(self) -> dict[str, dict[str, Any]]:
        """Zero-filled, the trained energy, and its prediction."""
        checkpoint = str(self.checkpoint)
        return {
            "zero_filled": {"classical": "zero_filled"},
            "deepen": {"configuration": str(self.configuration), "checkpoint": checkpoint},
            "predicted": {"predictions": str(self.prediction), "checkpoint": checkpoint},
        }

    def write(self, path: Path, *methods: str, **changes: Any) -> Path:
        """A study of some of these methods on one problem."""
        content = {
            "test": self.test.name,
            "validation": self.validation.name,
            "reference": (methods or tuple(changes["methods"]))[0],
            "seed": 3,
            "problems": {"2d4x": str(self.configuration)},
            "methods": {name: self.methods()[name] for name in methods},
        }
        path.write_text(yaml.safe_dump(content | changes, sort_keys=False), encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    test = tiny_direct.write_volumes(folder / "test", ["b", "a"], seed=20)
    validation = tiny_direct.write_volumes(folder / "validation", ["v"], seed=30, slices=1)
    config = tiny_direct.configuration(iterations=6, warm_start=6)
    config = tiny_direct.posterior(config)
    configuration = tiny_direct.write_configuration(folder / "posterior.yaml", config)
    checkpoint = tiny_direct.direct_train(folder, config, test) / "model_5.pt"
    prediction = tiny_direct.direct_predict(folder / "prediction", config, test, checkpoint)
    return Study(folder, configuration, test, validation, prediction, checkpoint)


@pytest.fixture
def copied(study: Study, tmp_path: Path) -> Path:
    """A copy of the prediction, to be damaged."""
    return Path(shutil.copytree(study.prediction, tmp_path / "copied"))


@pytest.fixture
def run_command(
    study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str]], SimpleNamespace]:
    """``run_command(arguments)``: ``direct-deepen`` in this process; its exit code, output and lines of errors."""
    # As in a process of its own: without pytest's handlers, warnings of any logger go to standard error.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.chdir(study.folder)

    def run(arguments: list[str]) -> SimpleNamespace:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, output=captured.out, errors=captured.err.splitlines())

    return run
