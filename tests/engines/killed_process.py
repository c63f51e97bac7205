"""A training or prediction in a process of its own that kills itself, at a call or in the middle of a file.

Processes are copies of a server that has imported DIRECT: what they do takes a second, importing DIRECT ten.
"""

import builtins
import gc
import io
import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CALL = "call"
"""The kind of a moment that is no file operation: the call of any Python function."""

CONTEXT = multiprocessing.get_context("forkserver")
"""Makes the copies."""

CONTEXT.set_forkserver_preload(
    ["pytest", "direct.train", "direct.predict", "torch.utils.tensorboard", "direct_deepen.engines.engine"]
)


def fork_runs_of_benchmarks(patch: pytest.MonkeyPatch) -> None:
    """Give the runs of a benchmark copies of that server: a new process each takes what importing DIRECT takes."""
    patch.setattr(
        "direct_deepen.evaluation.benchmark.multiprocessing", SimpleNamespace(get_context=lambda method: CONTEXT)
    )


@dataclass(frozen=True)
class Kill:
    """Where a process ends.

    Attributes
    ----------
    kind
        :data:`CALL`, or a file operation, as :class:`Record` tells them.
    number
        How many such events pass before.
    size
        Bytes of the file that are still written.
    signal
        What ends it: SIGKILL, or SIGINT for Ctrl-C.
    """

    kind: str
    number: int
    size: int = 0
    signal: int = signal.SIGKILL

    def happen(self) -> None:
        os.kill(os.getpid(), self.signal)


@dataclass(frozen=True)
class Record:
    """What a process that came to its end did.

    Attributes
    ----------
    operations
        Kind and size of every file operation, in order.
    calls
        Number of calls of Python functions, if they were to be counted: that takes as long again as what they do.
    """

    operations: list[tuple[str, int]]
    calls: int


def train(
    run: Path, config: dict[str, Any], data: Path, *, kill: Kill | None = None, count_calls: bool = False
) -> Record | None:
    """Run ``direct train --resume`` in another process; None if it was killed.

    Beside the run lie ``<name>.log``, what it said, and ``<name>.samples``, a line of JSON for every iteration.
    """
    return _run(_train, run, (config, data), kill, count_calls)


def predict(
    output: Path,
    config: dict[str, Any],
    data: Path,
    checkpoint: Path,
    *,
    kill: Kill | None = None,
    count_calls: bool = False,
) -> Record | None:
    """Run ``direct predict`` in another process; None if it was killed.

    Beside the output lie ``<name>.log``, what it said, and ``<name>.samples``, a line of JSON for every batch that was
    reconstructed: pairs of file and slice.
    """
    return _run(_predict, output, (config, data, checkpoint), kill, count_calls)


def _run(
    action: Callable[..., None], run: Path, arguments: tuple[Any, ...], kill: Kill | None, count_calls: bool
) -> Record | None:
    process = CONTEXT.Process(target=_in_process, args=(action, run, arguments, kill, count_calls))
    process.start()
    process.join(120)
    if kill is not None and process.exitcode == (-signal.SIGKILL if kill.signal == signal.SIGKILL else 130):
        return None
    assert process.exitcode == 0, run.with_suffix(".log").read_text()
    operations, calls = json.loads(run.with_suffix(".record").read_text())
    return Record([(kind, size) for kind, size in operations], calls)


def _in_process(
    action: Callable[..., None], run: Path, arguments: tuple[Any, ...], kill: Kill | None, count_calls: bool
) -> None:
    import torch

    # What the server has imported is not looked through for garbage: looking at it copies it.
    gc.freeze()
    torch.set_num_threads(1)
    # Locks of processes that are killed would be reported as lost; those of this kind have no name to lose.
    multiprocessing.set_start_method("fork", force=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    watch = _Watch(run)
    action(run, *arguments, lambda: watch.begin(kill, count_calls))
    run.with_suffix(".record").write_text(json.dumps([watch.operations, watch.calls]))


def _predict(
    output: Path, config: dict[str, Any], data: Path, checkpoint: Path, begin_to_watch: Callable[[], None]
) -> None:
    import recorded
    import tiny_direct

    note = _notes(output)
    with recorded.listening(recorded.BEFORE_BATCH, lambda problem: note(problem.names)):
        begin_to_watch()
        tiny_direct.direct_predict(output, tiny_direct.recorded(config), data, checkpoint)


def _train(run: Path, config: dict[str, Any], data: Path, begin_to_watch: Callable[[], None]) -> None:
    import recorded
    import tiny_direct

    note = _notes(run)
    with recorded.listening(recorded.BEFORE_UPDATE, lambda update: note([update.iteration, update.problem.names])):
        begin_to_watch()
        tiny_direct.direct_train(run.parent, tiny_direct.recorded(config), data, resume=True, name=run.name)


def _notes(run: Path) -> Callable[[Any], None]:
    """Return what writes down a line of JSON, which no kill undoes."""
    file = os.open(run.with_suffix(".samples"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(content: Any) -> None:
        os.write(file, (json.dumps(content) + "\n").encode())

    return note


class _Watch:
    """Counts calls, and what is done to files below a folder, and ends this process when it is time."""

    def __init__(self, folder: Path) -> None:
        self.operations: list[list[Any]] = []
        self.calls = 0
        self._folder = folder
        self._kill: Kill | None = None
        self._seen = 0

    def begin(self, kill: Kill | None, count_calls: bool) -> None:
        """Begin to count; calls if that is asked for, or one of them is the last."""
        self._kill = kill
        self._open, self._replace, self._remove = open, os.replace, os.unlink
        builtins.open = io.open = self._opened
        os.replace, os.unlink = self._replaced, self._removed
        if not count_calls and (kill is None or kill.kind != CALL):
            return
        monitoring = sys.monitoring
        monitoring.use_tool_id(monitoring.PROFILER_ID, "kill")
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.PY_START, self._called)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.PY_START)

    def _called(self, *_: Any) -> None:
        self.calls += 1
        if self._kill is not None and self._kill.kind == CALL and self.calls == self._kill.number + 1:
            self._kill.happen()

    def _opened(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        opened = self._open(file, mode, *args, **kwargs)
        if mode in ("r", "rb") or not self._is_ours(file):
            return opened
        dies = self._is_time("write", file)
        return _WatchedFile(opened, self.operations[-1], self._kill if dies else None)

    def _replaced(self, source: Any, target: Any) -> None:
        if self._is_ours(target) and self._is_time("rename", source):
            self._kill.happen()
        self._replace(source, target)

    def _removed(self, path: Any, **kwargs: Any) -> None:
        if self._is_ours(path) and self._is_time("remove", path):
            self._kill.happen()
        self._remove(path, **kwargs)

    def _is_ours(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(self._folder)

    def _is_time(self, verb: str, path: Any) -> bool:
        kind = f"{verb} {re.sub('[0-9]+', '<n>', Path(path).name)}"
        self.operations.append([kind, 0])
        if self._kill is None or kind != self._kill.kind:
            return False
        self._seen += 1
        return self._seen == self._kill.number + 1


class _WatchedFile:
    """A file that counts what is written to it and, if it is to, ends the process after so many bytes."""

    def __init__(self, file: Any, operation: list[Any], kill: Kill | None) -> None:
        self._file, self._operation, self._kill = file, operation, kill

    def write(self, content: Any) -> int:
        left = None if self._kill is None else self._kill.size - self._operation[1]
        if left is not None and len(content) >= left:
            self._file.write(content[:left])
            self._file.flush()
            kill, self._kill = self._kill, None
            kill.happen()
            # Ctrl-C may be waited with.
            self._operation[1] += len(content)
            return left + self._file.write(content[left:])
        self._operation[1] += len(content)
        return self._file.write(content)

    def close(self) -> None:
        self._file.close()
        kill, self._kill = self._kill, None
        if kill is not None:
            kill.happen()

    def __enter__(self) -> "_WatchedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
