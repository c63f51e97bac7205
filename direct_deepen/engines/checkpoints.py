"""Checkpoints: read before DIRECT does, written whole or not at all, and repaired after a kill.

What is wrong with one is told in a line instead of a traceback.
"""

import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any

import torch
from direct.checkpointer import Checkpointer
from direct.utils import communication
from direct.utils.io import check_is_valid_url
from torch import nn

from direct_deepen.errors import DeepenError, require
from direct_deepen.files import disk_errors_reported, interrupt_waits, remove_stale_folders, write_file, write_text
from direct_deepen.physics.scale import FIELD_OF_VIEW

LOADING_ERRORS = (
    RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, OSError, ModuleNotFoundError,
    UnpicklingError,
)  # fmt: skip
"""What ``torch.load`` raises on files it did not write, and reading the content of one that somebody else did."""

_UNFINISHED = ".checkpoint-"
"""Folders that checkpoints are written in, and a process number."""

_LAST = "last_model.txt"
"""Where DIRECT notes the iteration of its last checkpoint."""


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the main model in a checkpoint of DIRECT."""
    require(path.is_file(), f"{path}: no such checkpoint")
    try:
        weights = dict(torch.load(path, map_location="cpu", weights_only=True))["model"]
        return {name: torch.as_tensor(tensor) for name, tensor in weights.items()}
    except LOADING_ERRORS as error:
        raise DeepenError(f"{path}: no checkpoint of DIRECT ({type(error).__name__})") from error


TRAINED_WITH = "__trained_with__"
"""Where a checkpoint says what its weights mean. DIRECT stores values of such keys as they are."""

_ALWAYS_BEFORE = {"intensity_scale": FIELD_OF_VIEW}
"""Of what there was no choice when weights were trained whose checkpoint does not say it."""


def require_trained_with(path: Path | str, settings: Mapping[str, Any], instead: Mapping[str, str]) -> None:
    """Raise :class:`DeepenError` if a checkpoint says that another value of a setting is the one of its weights.

    ``instead`` says, by setting, what is to be done. Of what a file of an earlier version does not say, nothing is
    asked unless there was no choice; addresses of the web are left to DIRECT.
    """
    if check_is_valid_url(str(path)):
        return
    content = _ALWAYS_BEFORE | dict(torch.load(path, map_location="cpu", weights_only=True)).get(TRAINED_WITH, {})
    for name in content.keys() & settings.keys():
        require(
            content[name] == settings[name],
            f"{path}: was trained with model.{name} {content[name]!r}, this configuration has {settings[name]!r}; "
            f"{instead[name]}",
        )


_TRAINING_ENERGY = "__training_energy__"
"""Where a checkpoint has count, mean and variance of E per pixel of the object, of the images of training."""


def training_energy_of(path: Path | str) -> tuple[float, float] | None:
    """Return mean and standard deviation of E per pixel of the object, of the images that training saw.

    None for files of an earlier version, for priors that are no energies, and for addresses of the web.
    """
    if check_is_valid_url(str(path)):
        return None
    seen = dict(torch.load(path, map_location="cpu", weights_only=True)).get(_TRAINING_ENERGY)
    return (seen["mean"], seen["variance"] ** 0.5) if seen else None


def digest_of(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of weights, in hexadecimal digits: of names, types, shapes and values, not of a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_weights_of(model: nn.Module, path: Path | str) -> None:
    """Raise :class:`DeepenError` unless the checkpoint at ``path`` holds the weights of just such a model.

    DIRECT loads weights that the model lacks without an error: a deeper network would pass for a shallower one.
    Addresses of the web are left to DIRECT.
    """
    if check_is_valid_url(str(path)):
        return
    shapes = {name: tuple(tensor.shape) for name, tensor in weights_of(Path(path)).items()}
    for name, tensor in model.state_dict().items():
        require(name in shapes, f"{path}: weights of another model: {name} is missing")
        expected, found = tuple(tensor.shape), shapes.pop(name)
        require(
            found == expected,
            f"{path}: weights of another model: {name} has shape {found}; allowed with this configuration: {expected}",
        )
    require(not shapes, f"{path}: weights of another model: {', '.join(shapes)} not in this configuration's")


def restore_states(objects: Mapping[str, Any], path: Path) -> None:
    """Load the states of an optimizer, a scheduler, by name: what DIRECT raises on others does not name the file."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name in objects.keys() & content.keys():
        try:
            objects[name].load_state_dict(content[name])
        except LOADING_ERRORS as error:
            raise DeepenError(f"{path}: {name} of another training ({type(error).__name__})") from error


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers and text, as ``torch.load`` reads them, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(path, buffer.getvalue())


def state_path(run: Path, iteration: int, rank: int | None = None) -> Path:
    """Return the file of the state of a process, by default of this one, after an iteration."""
    return run / f"training_state_{iteration}_{communication.get_rank() if rank is None else rank}.pt"


class RunCheckpointer(Checkpointer):
    """DIRECT's checkpointer, with the state of training that ``state`` returns beside each of its checkpoints.

    DIRECT writes in place; here a file is there whole or not at all. The state comes first: a checkpoint that is there
    has its state beside it. That of the checkpoint before, at first of the ``iteration`` that training resumed from, is
    kept until the next one, as other processes may not have come as far.
    """

    save_directory: Path

    def __init__(
        self,
        checkpointer: Checkpointer,
        state: Callable[[], dict[str, Any]],
        iteration: int,
        trained_with: Mapping[str, Any],
        training_energy: dict[str, float],
    ) -> None:
        folder, saves = checkpointer.save_directory, checkpointer.save_to_disk
        objects = checkpointer.checkpointables | {TRAINED_WITH: dict(trained_with), _TRAINING_ENERGY: training_energy}
        super().__init__(folder, saves, model=checkpointer.model, **objects)
        self._state = state
        self.iteration = iteration
        """The last one that was saved."""

    @interrupt_waits()
    def save(self, iteration: int, **kwargs: Any) -> None:
        """Write the state, then the checkpoint, and then the note that it is the last one."""
        run = Path(self.save_directory)
        path = state_path(run, iteration)
        write_tensors(path, self._state())
        # Of several processes one writes the checkpoint.
        if self.save_to_disk:
            name = _checkpoint(run, iteration).name
            self._save_whole(run, iteration, {name: name, _LAST: _LAST}, **kwargs)
        self._remove_states(run, {iteration, self.iteration})
        self.iteration = iteration

    @interrupt_waits()
    def save_as(self, stem: str, iteration: int) -> None:
        """Write the checkpoint alone, under a name that training does not go on from."""
        if self.save_to_disk:
            run = Path(self.save_directory)
            self._save_whole(run, iteration, {_checkpoint(run, iteration).name: f"{stem}.pt"})

    def _remove_states(self, run: Path, kept: set[int]) -> None:
        """Remove this process' states of other iterations, and in the first one old ones of more processes than now."""
        rank, processes = communication.get_rank(), communication.get_world_size()
        for path in run.glob("training_state_*_*.pt"):
            iteration, other = map(int, path.stem.removeprefix("training_state_").split("_"))
            left = self.save_to_disk and other >= processes and iteration < min(kept)
            if (other == rank and iteration not in kept) or left:
                path.unlink()

    def _save_whole(self, run: Path, iteration: int, names: Mapping[str, str], **kwargs: Any) -> None:
        """Let DIRECT write files, and keep some by other names: model_<iteration>.pt before the note."""
        remove_stale_folders(run, _UNFINISHED)
        with (
            disk_errors_reported(_checkpoint(run, iteration)),
            TemporaryDirectory(dir=run, prefix=f"{_UNFINISHED}{os.getpid()}-", ignore_cleanup_errors=True) as folder,
        ):
            self.save_directory = Path(folder)
            try:
                super().save(iteration, **kwargs)
            finally:
                self.save_directory = run
            for path in sorted(Path(folder).iterdir(), reverse=True):
                if path.name in names:
                    os.replace(path, run / names[path.name])


def last_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint that DIRECT resumes from, after :func:`repair_run`; None where there is none."""
    number = _noted_number(run)
    return None if number is None else _checkpoint(run, number)


def repair_run(run: Path) -> None:
    """Let DIRECT resume from the newest whole checkpoint of its run, and append to a log of whole lines.

    What is found damaged, as by a loss of power, and what is used instead, is one warning in the log; damaged
    checkpoints stay where they are. Where none is whole, training begins anew. A note of a checkpoint that somebody
    removed stays, if there is no other.
    """
    log, last, noted = run / "metrics.json", run / _LAST, _noted_number(run)
    if log.is_file():
        with log.open("rb+") as file:
            # DIRECT would append the next line to half a line.
            file.truncate(file.read().rfind(b"\n") + 1)
    remove_stale_folders(run, _UNFINISHED)
    numbers = _numbers_by_preference(run, noted)
    if noted is not None and not numbers:
        return
    # PyTorch's files are zip archives, whose directory is written last.
    whole = next((number for number in numbers if zipfile.is_zipfile(_checkpoint(run, number))), None)
    torn = numbers if whole is None else numbers[: numbers.index(whole)]
    found = [f"{_checkpoint(run, number).name} is incomplete" for number in torn]
    if whole != noted or (last.exists() and noted is None):
        content = f"holds {last.read_text(encoding='utf-8', errors='replace')!r}" if last.is_file() else "is missing"
        found.insert(0, f"{_LAST} {content}")
    if not found:
        return
    if whole is None:
        last.unlink(missing_ok=True)
        used = "no checkpoint is whole, and training begins anew"
    else:
        write_text(last, str(whole))
        used = f"training goes on from {_checkpoint(run, whole).name}, the newest that is whole"
    logging.getLogger("direct_deepen").warning("%s: %s: %s.", run, ", ".join(found), used)


def _numbers_by_preference(run: Path, noted: int | None) -> list[int]:
    """Return the numbers of all checkpoints, the one to resume from first, then what may stand in for it.

    That is the one noted, so that an older one can be noted by hand, but for newer ones that were written after the
    note: training was killed before it noted them.
    """
    noted_at = (run / _LAST).stat().st_mtime_ns if noted is not None else 0

    def preference(number: int) -> tuple[bool, bool, int]:
        after = noted is not None and number > noted and _checkpoint(run, number).stat().st_mtime_ns > noted_at
        return after, number == noted, number

    stems = [path.stem.removeprefix("model_") for path in run.glob("model_*.pt")]
    return sorted((int(stem) for stem in stems if stem.isdecimal()), key=preference, reverse=True)


def _checkpoint(run: Path, number: int) -> Path:
    return run / f"model_{number}.pt"


def _noted_number(run: Path) -> int | None:
    last = run / _LAST
    text = last.read_text(encoding="utf-8", errors="replace").strip() if last.is_file() else ""
    return int(text) if text.isdecimal() else None
