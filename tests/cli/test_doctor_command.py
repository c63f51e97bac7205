"""The doctor: a healthy installation passes, a broken one is named, and the other checks run all the same."""

import pytest

from direct_deepen.cli import installation as doctor
from direct_deepen.cli.installation import examine
from direct_deepen.cli.main import main

CHECKS = ["versions", "device", "threads", "plugin", "self-test"]


def test_a_healthy_installation_passes_and_says_what_it_has(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[: len(CHECKS)]] == CHECKS
    assert all(line.startswith("ok ") for line in lines)
    (plugin,) = (line for line in lines if " plugin " in line)
    assert "deepen.energies.QuadraticEnergy" in plugin


def test_what_is_broken_is_named_and_the_rest_is_looked_at(monkeypatch, capsys):
    def broken():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(doctor, "_plugin", broken)
    monkeypatch.setattr(doctor, "_self_test", lambda: "as ever")
    findings = {finding.name: finding for finding in examine()}
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

    monkeypatch.setattr(doctor, "load_pretrained", Wrong)
    (found,) = (finding for finding in examine() if finding.name == "self-test")
    assert not found.passed
    assert "MAP is to be better" in found.detail


def test_a_package_that_is_missing_is_no_illness(monkeypatch):
    monkeypatch.setattr(doctor, "_self_test", lambda: "as ever")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    missing = [finding for finding in examine() if "not installed" in finding.detail]
    assert [finding.name for finding in missing] == ["nilearn", "deepinv"]
    assert all(finding.passed for finding in missing)
