"""What studies share: many trainings with DIRECT, on the CPU one on each core, as more threads gain little there."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from direct_deepen.errors import require
from direct_deepen.machine import available_cores, use_cores
from direct_deepen.progress import progress_bar

_ENDED = "ended.json"
_LOG = "output.log"


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes
    ----------
    folder
        Where it goes; its last part is the name of DIRECT's experiment.
    configuration
        All of DIRECT's configuration.
    data
        Folder with the folders ``training`` and ``validation``.
    seed
        DIRECT's seed.
    initialization
        Checkpoint to start from; it may be made by a training before this one in a list.
    keep_slices
        Whether, on the CPU, slices are transformed once and kept in memory, as small ones can be.
    """

    folder: Path
    configuration: Mapping[str, Any]
    data: Path
    seed: int = 0
    initialization: Path | None = None
    keep_slices: bool = True


def exit_code(folder: Path) -> int | None:
    """Return the exit code of a training that has ended, well or not; None for any other."""
    code = _end(folder).get("code")
    return None if code is None else int(code)


def seconds_spent(folder: Path) -> float:
    """Return how long a training took, all its runs together that were not killed."""
    return _end(folder).get("seconds", 0.0)


def _end(folder: Path) -> dict[str, float]:
    path = folder / _ENDED
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def run_trainings(trainings: Sequence[Training], *, device: str = "cpu") -> None:
    """Run the trainings that have not ended with `direct train`, those first whose checkpoint to start from is there.

    On the CPU every core runs one, in a process of its own; on a GPU one runs after the other. A training that was
    interrupted goes on. One that fails loses no other but those that start from it.

    Raises
    ------
    DeepenError
        In the end, if trainings failed, with their logs; or if nothing makes the checkpoint that one starts from.
    """
    processes = multiprocessing.get_context("forkserver")
    # Imported once: every training is a copy of a process that has.
    processes.set_forkserver_preload(["direct.cli.cli", "direct_deepen.engines.plugin.deepen_engine", __name__])
    cores = available_cores()
    free: SimpleQueue[set[int]] = SimpleQueue()
    for share in [{core} for core in cores] if device == "cpu" else [set(cores)]:
        free.put(share)

    def run(training: Training) -> None:
        share = free.get()
        process = processes.Process(target=_train, args=(training, share, device))
        process.start()
        process.join()
        free.put(share)

    missing = [training for training in trainings if exit_code(training.folder) is None]
    failed: list[str] = []
    with ThreadPoolExecutor(free.qsize()) as threads:
        while ready := [t for t in missing if t.initialization is None or t.initialization.is_file()]:
            missing = [training for training in missing if training not in ready]
            for _ in progress_bar(threads.map(run, ready), name="trainings", unit="training", total=len(ready)):
                pass
            failed += [str(training.folder / _LOG) for training in ready if exit_code(training.folder) != 0]
    require(not failed, f"{len(failed)} of the trainings failed: see {', '.join(failed)}")
    require(not missing, f"{[str(t.initialization) for t in missing]}: not there, and no training makes it")


def _train(training: Training, cores: set[int], device: str) -> None:
    """Train in this process, on some cores, with DIRECT's own command."""
    use_cores(cores)
    folder = training.folder
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "configuration.yaml"
    config.write_text(yaml.safe_dump(dict(training.configuration), sort_keys=False), encoding="utf-8")
    options = ["--training-root", training.data / "training", "--validation-root", training.data / "validation"]
    options += ["--cfg", config, "--name", folder.name, "--seed", training.seed]
    options += ["--device", device, "--num-workers", 0 if device == "cpu" else len(cores) - 1]
    # Not its note of the last one: a training may have been killed before it wrote that.
    if any(folder.glob("model_*.pt")):
        options.append("--resume")
    if training.initialization is not None:
        options += ["--initialization-checkpoint", training.initialization]
    sys.argv = ["direct", "train", str(folder.parent), *map(str, options)]
    sys.stdout = sys.stderr = log = (folder / _LOG).open("a", encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    from direct.cli.cli import main
    from direct.data.datasets import FastMRIDataset

    if device == "cpu" and training.keep_slices:
        _keep_slices(FastMRIDataset)
    before = _end(folder).get("seconds", 0.0)
    begin = time.perf_counter()
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    # Any other code is that of a training which was interrupted, and goes on next time.
    ended = {"code": int(code or 0)} if code in (0, None, 2) else {}
    seconds = round(before + time.perf_counter() - begin, 1)
    (folder / _ENDED).write_text(json.dumps(ended | {"seconds": seconds}) + "\n", encoding="utf-8")


def _keep_slices(dataset: Any) -> None:
    """Let a dataset transform every slice once: masks are static, so that every epoch sees the same.

    At small sizes the transforms would take longer than the training.
    """
    transform = dataset.__getitem__

    def remembered(self: Any, index: Any) -> dict[str, Any]:
        slices = self.__dict__.setdefault("remembered_slices", {})
        # DIRECT's sampler gives tensors, each another key.
        index = int(index)
        if index not in slices:
            slices[index] = transform(self, index)
        return dict(slices[index])

    dataset.__getitem__ = remembered
