"""What a killed training leaves behind: files that DIRECT writes in place may have lost their end."""

import logging
import zipfile
from pathlib import Path

from direct_deepen.files import remove_stale_folders, write_text

UNFINISHED = ".checkpoint-"
"""Folders that checkpoints are written in, and a process number."""

_LAST = "last_model.txt"
"""Where DIRECT notes the iteration of its last checkpoint."""


def last_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint that DIRECT resumes from, after :func:`repair_run`; None where there is none."""
    number = _noted_number(run)
    return None if number is None else _checkpoint(run, number)


def repair_run(run: Path) -> None:
    """Let DIRECT resume from the newest whole checkpoint of its run, and append to a log of whole lines.

    DIRECT writes ``model_<n>.pt`` first and ``last_model.txt`` after it, both in place. What is found damaged, and
    what is used instead, is one warning in the log; damaged checkpoints stay where they are. Where no checkpoint is
    whole, training begins anew. A note of a checkpoint that somebody removed stays, if there is no other. Folders of
    checkpoints that were being written go.
    """
    log, last, noted = run / "metrics.json", run / _LAST, _noted_number(run)
    if log.is_file():
        with log.open("rb+") as file:
            # DIRECT would append the next line to half a line.
            file.truncate(file.read().rfind(b"\n") + 1)
    remove_stale_folders(run, UNFINISHED)
    numbers = _numbers_by_preference(run, noted)
    if noted is not None and not numbers:
        return
    found, whole = [], None
    for number in numbers:
        # PyTorch's files are zip archives, whose directory is written last.
        if zipfile.is_zipfile(_checkpoint(run, number)):
            whole = number
            break
        found.append(f"{_checkpoint(run, number).name} is incomplete")
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
    note: DIRECT was killed before it noted them.
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
