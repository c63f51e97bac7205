"""What the README shows runs."""

import re
import shlex

import pytest
import sigpy.mri
import torch
from documents import ROOT, blocks

from direct_deepen import MapResult, Posterior, SenseOperator
from direct_deepen.cli.main import main
from direct_deepen.physics.noise import complex_normal_like

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_as_it_stands():
    generator = torch.Generator().manual_seed(0)
    maps = torch.from_numpy(sigpy.mri.birdcage_maps((4, 32, 32)))[None].to(torch.complex64)
    # Every other line, and a fully sampled centre for the intensity scale and the noise level.
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., ::2] = True
    mask[..., 8:24] = True
    image = torch.zeros(1, 32, 32, dtype=torch.complex64)
    image[:, 8:24, 8:24] = 5.0
    A = SenseOperator(maps, mask)
    kspace = A.forward(image)
    kspace += 0.05 * complex_normal_like(kspace, generator=generator) * mask
    (example,) = blocks(ROOT / "README.md", "python")
    names: dict[str, object] = {"sensitivity_map": maps, "sampling_mask": mask, "masked_kspace": kspace}
    exec(example.text, names)
    assert isinstance(names["result"], MapResult)
    assert isinstance(names["posterior"], Posterior)
    assert names["image"].shape == (1, 32, 32)  # type: ignore[attr-defined]
    # Back in the units of the data.
    assert 2.5 < float(names["image"].abs().max()) < 10.0  # type: ignore[attr-defined]


def test_every_file_the_readme_names_exists():
    named = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"configs/[\w/]+\.\w+", README)
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize(
    "command",
    [
        "phantom",
        "simulate",
        "configure",
        "benchmark",
        "calibrate",
        "posterior",
        "region",
        "landscape",
        "doctor",
        "report",
        "reconstruct",
    ],
)
def test_help_of_our_commands_exits_cleanly(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "example" in capsys.readouterr().out


def test_the_phantom_command_of_the_readme_parses(monkeypatch):
    (line,) = re.findall(r"`(direct-deepen phantom [^`]+)`", README)
    called = []
    monkeypatch.setattr("direct_deepen.data.phantom.write_phantoms", lambda *args, **kwargs: called.append(kwargs))
    assert main(shlex.split(line)[1:]) == 0
    assert called[0]["num_coils"] == 12
