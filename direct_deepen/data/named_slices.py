"""Datasets of DIRECT whose errors name file and slice."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from direct_deepen.errors import DeepenError

_TRANSFORM_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip
"""What DIRECT raises, depending on what is wrong with a file."""


def read_slice(dataset: Any, index: int) -> dict[str, Any]:
    """Return a sample of a dataset of DIRECT.

    Raises
    ------
    DeepenError
        If DIRECT cannot read or transform it; the message names file and slice.
    """
    try:
        return dataset[index]
    except _TRANSFORM_ERRORS as error:
        path, number = dataset.data[index]
        reason = " ".join(str(error).split())
        raise DeepenError(f"{path}: slice {number} cannot be read: {type(error).__name__}: {reason}") from error


class NamedSlices(Dataset):
    """A dataset of DIRECT, read by :func:`read_slice`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.ndim: int = dataset.ndim
        self.text_description: str | None = dataset.text_description
        self.volume_indices: dict[Path, range] = dataset.volume_indices

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return read_slice(self.dataset, int(index))
