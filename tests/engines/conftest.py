"""What the tests of the engine share: tiny volumes, a trained run, its predictions, a batch as DIRECT makes it."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import recorded
import tiny_direct
from torch.utils.data import default_collate


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two volumes, ``a`` and ``b``, of two slices each."""
    return tiny_direct.write_volumes(tmp_path_factory.mktemp("engines") / "volumes", ["a", "b"])


@pytest.fixture(scope="session")
def training_config() -> dict[str, Any]:
    """Nine iterations, the last three of them contrastive, with a validation at their end."""
    config = tiny_direct.configuration(iterations=9, warm_start=6)
    validation = {**config["training"]["datasets"][0], "text_description": "validation"}
    return tiny_direct.changed(config, {"validation.datasets": [validation]})


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, training_config: dict[str, Any], volumes: Path) -> Path:
    return tiny_direct.direct_train(tmp_path_factory.mktemp("trained"), training_config, volumes)


@pytest.fixture(scope="session")
def checkpoint(trained: Path) -> Path:
    return trained / "model_8.pt"


@pytest.fixture(scope="session")
def map_config() -> dict[str, Any]:
    return tiny_direct.configuration()


@pytest.fixture(scope="session")
def mean_config(map_config: dict[str, Any]) -> dict[str, Any]:
    return tiny_direct.posterior(map_config)


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one volume, ``test``, of two slices."""
    return tiny_direct.write_volumes(tmp_path_factory.mktemp("engines") / "volume", ["test"], seed=10)


@pytest.fixture(scope="session")
def map_prediction(tmp_path_factory, map_config, volume, checkpoint) -> Path:
    return tiny_direct.direct_predict(tmp_path_factory.mktemp("map"), map_config, volume, checkpoint)


@pytest.fixture(scope="session")
def mean_prediction(tmp_path_factory, mean_config, volume, checkpoint) -> Path:
    return tiny_direct.direct_predict(tmp_path_factory.mktemp("mean"), mean_config, volume, checkpoint)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, map_config: dict[str, Any]) -> Any:
    """Configuration and engine, not to be changed by a test."""
    return tiny_direct.build_environment(tmp_path_factory.mktemp("environment"), map_config)


@pytest.fixture(scope="session")
def samples(environment: Any, volumes: Path) -> list[dict[str, Any]]:
    """The slices of both volumes as DIRECT's transforms make them for training."""
    return tiny_direct.training_samples(environment, volumes)


@pytest.fixture
def batch(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of three slices, collated anew for every test."""
    return default_collate(samples[:3])


@contextmanager
def _exit_with_one_line(caplog: pytest.LogCaptureFixture, *words: str) -> Iterator[None]:
    caplog.clear()
    # DIRECT logs to standard output; a traceback that something prints itself, or a bar, would be here.
    with redirect_stderr(io.StringIO()) as printed, pytest.raises(SystemExit) as caught:
        yield
    assert printed.getvalue() == ""
    assert caught.value.code == 2
    # Whatever its level, a record that carries an exception is printed with its traceback.
    assert [record for record in caplog.records if record.exc_info or record.stack_info] == []
    (error,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "\n" not in error
    for word in words:
        assert word in error


@pytest.fixture
def exit_with_one_line(caplog: pytest.LogCaptureFixture) -> Callable[..., AbstractContextManager[None]]:
    """``with exit_with_one_line("word", ...):`` expects exit code 2 and one line with these words in DIRECT's log."""

    def expect(*words: str) -> AbstractContextManager[None]:
        return _exit_with_one_line(caplog, *words)

    return expect


@pytest.fixture
def updates() -> Iterator[list[SimpleNamespace]]:
    """Every update of a training by ``tiny_direct.recorded``: iteration, generator and weights before, problem."""
    record = []

    def note(update: Any) -> None:
        weights = {name: tensor.clone() for name, tensor in update.prior.state_dict().items()}
        record.append(
            SimpleNamespace(
                iteration=update.iteration,
                generator=update.generator.get_state(),
                weights=weights,
                problem=update.problem,
                reference=update.reference,
            )
        )

    with recorded.listening(recorded.BEFORE_UPDATE, note):
        yield record


@pytest.fixture
def reconstructed() -> Iterator[list[str]]:
    """The volume of every batch that a prediction by ``tiny_direct.recorded`` reconstructs."""
    record: list[str] = []
    with recorded.listening(recorded.BEFORE_BATCH, lambda problem: record.append(Path(problem.names[0][0]).stem)):
        yield record
