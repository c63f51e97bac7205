"""What a command says besides its results: warnings always; with ``--verbose`` what it reads and uses, and how long."""

import argparse
import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from tqdm.contrib.logging import logging_redirect_tqdm

_logger = logging.getLogger("direct_deepen")


def shared_options() -> argparse.ArgumentParser:
    """Return the parser of the options that all commands share."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also say, on standard error, what is read and used, and how long"
    )
    return parser


@contextmanager
def told(verbose: bool) -> Iterator[None]:
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


def tell_command(args: argparse.Namespace) -> None:
    """Log versions and arguments."""
    packages = {"direct-deepen": "direct-deepen", "DIRECT": "direct-recon", "PyTorch": "torch"}
    versions = ", ".join(f"{title} {version(package)}" for title, package in packages.items())
    _logger.info("%s, Python %s", versions, platform.python_version())
    given = {name: value for name, value in vars(args).items() if name not in ("run", "verbose")}
    _logger.info("%s", ", ".join(f"{name}={value}" for name, value in given.items()))


def tell_device(device: str = "cpu") -> None:
    """Log where a command computes."""
    import torch

    _logger.info("device %s, %i threads", device, torch.get_num_threads())
