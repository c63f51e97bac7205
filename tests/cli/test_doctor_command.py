"""The doctor: a healthy installation passes, a broken one is named, and the other checks run all the same."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from direct_deepen.cli import installation
from direct_deepen.cli.installation import check_installation
from direct_deepen.cli.main import main

CHECKS = ["versions", "device", "threads", "plugin", "self-test"]


def test_a_healthy_installation_passes_and_says_what_it_has(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[: len(CHECKS)]] == CHECKS
    assert all(line.startswith("ok ") for line in lines)
    (plugin,) = (line for line in lines if " plugin " in line)
    assert "deepen.priors.QuadraticEnergy" in plugin


def test_what_is_broken_is_named_and_the_rest_is_looked_at(monkeypatch, capsys):
    def broken():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(installation, "_plugin", broken)
    monkeypatch.setattr(installation, "_self_test", lambda: "unchanged")
    findings = {finding.name: finding for finding in check_installation()}
    assert [name for name, finding in findings.items() if not finding.passed] == ["plugin"]
    assert findings["plugin"].detail == "RuntimeError: first line"
    assert main(["doctor"]) == 2
    captured = capsys.readouterr()
    assert "BAD plugin" in captured.out
    assert "not in order: plugin" in captured.err


@pytest.mark.parametrize("factor", [0.0, 30.0])
def test_the_self_test_fails_for_an_energy_that_does_not_help(monkeypatch, factor):
    class Wrong:
        def __call__(self, image):
            return self.value_and_grad(image)[0]

        def value_and_grad(self, image):
            return 0.5 * factor * image.abs().square().sum(dim=(1, 2)), factor * image

    monkeypatch.setattr(installation, "load_pretrained", Wrong)
    (found,) = (finding for finding in check_installation() if finding.name == "self-test")
    assert not found.passed
    assert "MAP should be better" in found.detail


def test_an_optional_package_may_be_missing(monkeypatch):
    def without_extras(name):
        if name in ("nilearn", "deepinv"):
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(installation, "_self_test", lambda: "unchanged")
    monkeypatch.setattr(installation, "version", without_extras)
    missing = [finding for finding in check_installation() if "not installed" in finding.detail]
    assert [finding.name for finding in missing] == ["nilearn", "deepinv"]
    assert all(finding.passed for finding in missing)
