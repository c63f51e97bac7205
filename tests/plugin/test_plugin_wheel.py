"""What an installation brings along."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
UV = REPOSITORY / ".venv" / "bin" / "uv"


@pytest.mark.slow
def test_an_installation_adds_one_folder_to_direct_and_no_package_above_it(tmp_path):
    # A copy: building leaves folders behind.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "direct_deepen", source / "direct_deepen")
    target = tmp_path / "target"
    command = [UV, "pip", "install", "--no-deps", "--target", target, source]
    subprocess.run(command, check=True, capture_output=True, timeout=300)

    installed = {path.relative_to(target).as_posix() for path in target.rglob("*.py")}
    assert {path for path in installed if path.startswith("direct/")} == {
        f"direct/nn/deepen/{path.name}" for path in (REPOSITORY / "direct_deepen" / "plugin").glob("*.py")
    }
    modules = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "direct_deepen").rglob("*.py")}
    # The plugin's files are installed under DIRECT's name, all others under ours.
    plugin = {path for path in modules if path.startswith("direct_deepen/engines/plugin/")}
    assert {path for path in installed if path.startswith("direct_deepen/")} == modules - plugin
    assert (target / "direct_deepen" / "py.typed").is_file()
    assert (target / "direct_deepen" / "assets" / "viewer.js").is_file()
    (entry_points,) = target.glob("direct_deepen-*.dist-info/entry_points.txt")
    assert "direct-deepen = direct_deepen.cli.main:main" in entry_points.read_text()
