"""What a command says besides its results: warnings always; with ``--verbose`` what it reads and uses, and how long."""

import argparse
import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

import direct_deepen

_logger = logging.getLogger("direct_deepen")


@contextmanager
def log_to_standard_error(verbose: bool) -> Iterator[None]:
    """Write what this package logs to standard error, above progress bars: warnings, and all else if ``verbose``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    before = _logger.level
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        with logging_redirect_tqdm([_logger]):
            yield
    finally:
        _logger.setLevel(before)
        _logger.removeHandler(handler)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Log how long something took."""
    begin = time.perf_counter()
    yield
    _logger.info("%s: %.1f s", name, time.perf_counter() - begin)


def versions() -> str:
    """Return the versions that a result depends on, in one line."""
    packages = {"DIRECT": "direct-recon", "PyTorch": "torch", "sigpy": "sigpy"}
    found = ", ".join(f"{title} {version(package)}" for title, package in packages.items())
    python = f"Python {platform.python_version()}, {platform.system()}"
    return f"direct-deepen {direct_deepen.__version__}, {found}, {python}"


def log_arguments(args: argparse.Namespace) -> None:
    """Log versions, threads and arguments."""
    given = {name: value for name, value in vars(args).items() if name not in ("run", "verbose")}
    _logger.info("%s, %i threads", versions(), torch.get_num_threads())
    _logger.info("%s", ", ".join(f"{name}={value}" for name, value in given.items()))
