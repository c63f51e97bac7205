"""Reading a checkpoint before DIRECT does: one line about what is wrong instead of a traceback."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from direct.utils.io import check_is_valid_url
from torch import nn

from direct_deepen.errors import DeepenError, require
from direct_deepen.files import write_file

LOADING_ERRORS = (
    RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, OSError, ModuleNotFoundError,
    UnpicklingError,
)  # fmt: skip
"""What ``torch.load`` raises on files it did not write, and reading the content of one that somebody else did."""


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the main model in a checkpoint of DIRECT.

    Raises
    ------
    DeepenError
        If there is no file, or it is no checkpoint.
    """
    require(path.is_file(), f"{path}: no such checkpoint")
    try:
        weights = dict(torch.load(path, map_location="cpu", weights_only=True))["model"]
        return {name: torch.as_tensor(tensor) for name, tensor in weights.items()}
    except LOADING_ERRORS as error:
        raise DeepenError(f"{path}: no checkpoint of DIRECT ({type(error).__name__})") from error


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers and text, as ``torch.load`` reads them, whole or not at all.

    Raises
    ------
    DeepenError
        If the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file(path, buffer.getvalue())


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
    """Load the states of an optimizer, a scheduler, by name, from a checkpoint.

    Raises
    ------
    DeepenError
        If they are those of another training: what DIRECT raises then does not name the file.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name in objects.keys() & content.keys():
        try:
            objects[name].load_state_dict(content[name])
        except LOADING_ERRORS as error:
            raise DeepenError(f"{path}: {name} of another training ({type(error).__name__})") from error
