"""Checkpoints that are whole or not there, and beside each the state of training that DIRECT's do not hold."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from direct.checkpointer import Checkpointer
from direct.utils import communication

from direct_deepen.engines.checkpoints import write_tensors
from direct_deepen.engines.interrupted_run import UNFINISHED
from direct_deepen.files import disk_errors_reported, remove_stale_folders


def state_path(run: Path, iteration: int) -> Path:
    """Return the file of this process' state after an iteration."""
    return run / f"training_state_{iteration}_{communication.get_rank()}.pt"


class RunCheckpointer(Checkpointer):
    """DIRECT's checkpointer, whose files are there whole or not at all, with the state of training beside them.

    DIRECT writes in place. The state comes first: a checkpoint that is there has its state beside it, whenever
    training is killed. The state of the checkpoint before is kept until the next one, as other processes may not have
    come as far.

    Parameters
    ----------
    checkpointer
        DIRECT's own.
    state
        Returns the state of this process.
    iteration
        That of the checkpoint that training resumed from; -1 for none.
    """

    save_directory: Path

    def __init__(self, checkpointer: Checkpointer, state: Callable[[], dict[str, Any]], iteration: int) -> None:
        super().__init__(
            checkpointer.save_directory,
            checkpointer.save_to_disk,
            model=checkpointer.model,
            **checkpointer.checkpointables,
        )
        self._state = state
        self._iteration = iteration

    def save(self, iteration: int, **kwargs: Any) -> None:
        """Write the state, then the checkpoint, and then the note that it is the last one.

        Raises
        ------
        DeepenError
            If the disk is full or read-only; what was there before stays.
        """
        run = Path(self.save_directory)
        path = state_path(run, iteration)
        write_tensors(path, self._state())
        # Of several processes one writes the checkpoint.
        if self.save_to_disk:
            self._save_whole(run, iteration, **kwargs)
        kept = {path, state_path(run, self._iteration)}
        for other in run.glob(f"training_state_*_{communication.get_rank()}.pt"):
            if other not in kept:
                other.unlink()
        self._iteration = iteration

    def _save_whole(self, run: Path, iteration: int, **kwargs: Any) -> None:
        remove_stale_folders(run, UNFINISHED)
        with (
            disk_errors_reported(run / f"model_{iteration}.pt"),
            TemporaryDirectory(dir=run, prefix=f"{UNFINISHED}{os.getpid()}-", ignore_cleanup_errors=True) as folder,
        ):
            self.save_directory = Path(folder)
            try:
                super().save(iteration, **kwargs)
            finally:
                self.save_directory = run
            # Of the two, model_<iteration>.pt first.
            for path in sorted(Path(folder).iterdir(), reverse=True):
                os.replace(path, run / path.name)
