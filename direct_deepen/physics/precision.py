"""The precision that solvers and samplers compute in: that of their data, whatever surrounds them."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps

import torch

_DEVICES = ("cpu", "cuda")


def without_autocast[**Arguments, Result](function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Keep ``torch.autocast`` out of a function: costs that are compared, and small residuals, need all digits."""

    @wraps(function)
    def in_full_precision(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        with ExitStack() as stack:
            for device in _DEVICES:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*arguments, **keywords)

    return in_full_precision
