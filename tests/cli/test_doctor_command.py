"""The doctor: a healthy installation passes, a broken one is named, and the other checks run all the same."""

import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from direct_deepen.cli import doctor
from direct_deepen.cli.main import main

CHECKS = ["versions", "device", "threads", "plugin", "self-test"]


def findings(capsys):
    """What is printed of every check: its mark and its line."""
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    return {name: (mark, detail) for mark, name, detail in lines}


def test_a_healthy_installation_passes_and_says_what_it_has(capsys):
    assert main(["doctor"]) == 0
    found = findings(capsys)
    assert list(found)[: len(CHECKS)] == CHECKS
    assert all(mark == "ok" for mark, _ in found.values())
    assert "deepen.priors.QuadraticEnergy" in found["plugin"][1]


def test_what_is_broken_is_named_and_the_rest_is_looked_at(monkeypatch, capsys):
    def broken():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(doctor, "_plugin", broken)
    monkeypatch.setattr(doctor, "_self_test", lambda: "unchanged")
    assert main(["doctor"]) == 2
    captured = capsys.readouterr()
    assert "BAD plugin      RuntimeError: first line\nok  self-test   unchanged\n" in captured.out
    assert captured.out.count("BAD") == 1
    assert "not in order: plugin" in captured.err


def test_packages_that_cannot_be_imported_are_named(monkeypatch, capsys):
    for name in ("direct.environment", "sigpy.mri"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["doctor"]) == 2
    found = findings(capsys)
    assert [name for name, (mark, _) in found.items() if mark == "BAD"] == ["plugin", "self-test"]
    assert "direct.environment" in found["plugin"][1]
    assert "sigpy.mri" in found["self-test"][1]


@pytest.mark.parametrize("factor", [0.0, 30.0])
def test_the_self_test_fails_for_an_energy_that_does_not_help(monkeypatch, capsys, factor):
    class Wrong:
        prior_noise_std = doctor._NOISE_STD

        def __call__(self, image):
            return self.value_and_grad(image)[0]

        def value_and_grad(self, image):
            return 0.5 * factor * image.abs().square().sum(dim=(1, 2)), factor * image

    monkeypatch.setattr(doctor, "load_pretrained", Wrong)
    assert main(["doctor"]) == 2
    mark, detail = findings(capsys)["self-test"]
    assert mark == "BAD"
    assert "MAP should be better" in detail


def test_an_optional_package_may_be_missing(monkeypatch, capsys):
    def without_extras(name):
        if name in ("nilearn", "deepinv"):
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "_self_test", lambda: "unchanged")
    monkeypatch.setattr(doctor, "version", without_extras)
    assert main(["doctor"]) == 0
    found = findings(capsys)
    missing = [name for name, (mark, detail) in found.items() if mark == "ok" and "not installed" in detail]
    assert missing == ["nilearn", "deepinv"]
