"""How bad input is reported inside DIRECT's commands: one line in the log, exit code 2, no traceback."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from direct_deepen.errors import DeepenError


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Turn a :class:`DeepenError`, also one that DIRECT wrapped, into one logged line and ``SystemExit(2)``.

    DIRECT writes its logs when an iteration fails, and its printer fails in turn (division by zero) if that was the
    first: so any exception is searched for the one that began it.
    """
    try:
        yield
    except Exception as error:
        found = deepen_error_of(error)
        if found is None:
            raise
        # A process that loads data hands over the text of the traceback as the message; its end is the message.
        message = str(found).rpartition(f"{DeepenError.__name__}: ")[2].strip()
        logger = logging.getLogger("direct_deepen")
        if logger.hasHandlers():
            logger.error(message)
        else:
            print(f"direct-deepen: error: {message}", file=sys.stderr)
        raise SystemExit(2) from error


def deepen_error_of(error: BaseException | None) -> DeepenError | None:
    """Return the :class:`DeepenError` that an exception is, was raised from, or was raised while handling."""
    while error is not None and not isinstance(error, DeepenError):
        error = error.__cause__ or error.__context__
    return error
