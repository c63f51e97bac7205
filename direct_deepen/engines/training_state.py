"""What training needs to go on and DIRECT's checkpoints do not hold, in a file beside each of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from direct.checkpointer import Checkpointer
from direct.utils import communication

from direct_deepen.engines.checkpoints import WholeCheckpointer, write_tensors


def state_path(run: Path, iteration: int) -> Path:
    """Return the file of this process' state after an iteration."""
    return run / f"training_state_{iteration}_{communication.get_rank()}.pt"


class StateCheckpointer(WholeCheckpointer):
    """DIRECT's checkpointer, which writes whole files, and the state of training beside every checkpoint.

    The state comes first, and whole: a checkpoint that is there has its state beside it, whenever training is killed.
    The state of the checkpoint before is kept until the next one, as other processes may not have come as far.

    Parameters
    ----------
    checkpointer
        DIRECT's own.
    state
        Returns the state.
    iteration
        That of the checkpoint that training resumed from; -1 for none.
    """

    def __init__(self, checkpointer: Checkpointer, state: Callable[[], dict[str, Any]], iteration: int) -> None:
        super().__init__(checkpointer)
        self._state = state
        self._iteration = iteration

    def save(self, iteration: int, **kwargs: Any) -> None:
        """Write the state, then the checkpoint.

        Raises
        ------
        DeepenError
            If the disk is full or read-only.
        """
        run = Path(self.save_directory)
        path = state_path(run, iteration)
        write_tensors(path, self._state())
        super().save(iteration, **kwargs)
        kept = {path, state_path(run, self._iteration)}
        for other in run.glob(f"training_state_*_{communication.get_rank()}.pt"):
            if other not in kept:
                other.unlink()
        self._iteration = iteration
