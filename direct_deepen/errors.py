"""Errors a user can act on: one line that names the key or file, the value, and what is allowed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class DeepenError(ValueError):
    """Bad input or a failed computation, described in one line for the person who can fix it."""


class DivergenceError(DeepenError, RuntimeError):
    """A chain, a solver or a training step produced values that are not finite.

    It is also a :class:`RuntimeError`, which DIRECT's training loop answers by writing a checkpoint and its logs.
    ``images`` are the images of the batch that did, where that is known.
    """

    def __init__(self, message: str, images: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.images = list(images)


@contextmanager
def optional_import(extra: str, need: str) -> Iterator[None]:
    """Turn an import that fails within this context into a :class:`DeepenError`: ``need``, and how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise DeepenError(f"{need}: pip install 'direct-deepen[{extra}]'") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [""])[0]


def require(condition: bool, message: str) -> None:
    """Raise :class:`DeepenError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise DeepenError(message)


def require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise :class:`DeepenError` unless ``value`` is one of ``allowed``."""
    require(value in allowed, f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def require_positive(name: str, value: float) -> None:
    """Raise :class:`DeepenError` unless ``value`` is a finite number above zero."""
    require(0.0 < value < float("inf"), f"{name} is {value!r}; allowed: a finite number > 0")


def require_count(name: str, value: int, least: int = 1) -> None:
    """Raise :class:`DeepenError` unless ``value`` is at least ``least``."""
    require(value >= least, f"{name} is {value!r}; allowed: an integer >= {least}")


def require_weight(name: str, value: float) -> None:
    """Raise :class:`DeepenError` unless ``value`` is a finite number, zero or above."""
    require(0.0 <= value < float("inf"), f"{name} is {value!r}; allowed: a finite number >= 0")
