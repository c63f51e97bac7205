"""What is freed is used again where glibc allocates, and nothing happens elsewhere."""

import ctypes
import platform
import subprocess
import sys

import pytest

from direct_deepen.priors.cpu.allocator import keep_freed_pages

SCRIPT = """
import resource, sys, torch
from direct_deepen.priors.cpu.allocator import keep_freed_pages
if sys.argv[1] == "keep":
    assert keep_freed_pages() and keep_freed_pages()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
# The system may take pages of any process back: of three rounds the one that it left alone.
print(min(faults() for _ in range(3)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_pages_are_not_cleared_again():
    def faults(choice: str) -> int:
        command = [sys.executable, "-c", SCRIPT, choice]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # Huge pages of 2 MB, if the system has them, are 32 faults for each of the five.
    assert faults("leave") >= 5 * 32
    assert faults("keep") < 16


def test_systems_without_glibc_are_left_alone(monkeypatch):
    def missing(name: str | None) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not keep_freed_pages()
