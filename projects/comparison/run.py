"""Train every method of the comparison on phantoms, one training a core, all on the same data.

    python projects/comparison/run.py runs/comparison
    python projects/comparison/run.py runs/comparison --masks 2d4x --systems deepen elder

Writes phantoms to OUTPUT/data on first use and every training to OUTPUT/<mask>/<system>; trainings that have ended are
not repeated, and those that were interrupted go on. MuSE and PnP-ISTA never see a mask: they are trained once, in
OUTPUT/any. The tables are made from the weights by `direct-deepen benchmark`, see README.md.
"""

import argparse
import copy
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from direct_deepen.engines.checkpoints import weights_of
from direct_deepen.trainings import Training, run_trainings

CONFIGS = Path("configs")
ANY = "any"
MASKS = ("2d4x", "1d4x", "2d6x", "1d2x")
WITHOUT_MASK = ("muse", "pnp_ista")
WITH_MASK = ("deepen", "elder", "mol", "varnet", "vsharp")

VOLUMES = {"training": (100, 4), "validation": (4, 2), "test": (20, 2)}
"""Volumes and slices of each; the seed of a set is its place here, from 1."""


def write_data(folder: Path) -> None:
    """Write the phantoms, unless they are there."""
    for seed, (name, (volumes, slices)) in enumerate(VOLUMES.items(), start=1):
        if not (folder / name).is_dir():
            command = [Path(sys.executable).with_name("direct-deepen"), "phantom", folder / name]
            command += ["--volumes", volumes, "--slices", slices, "--size", 64, "--coils", 8, "--seed", seed]
            subprocess.run([str(part) for part in command], check=True)


def masking(mask: str) -> dict[str, Any]:
    """Return the sampling of a mask, from where all configurations have it."""
    specification = importlib.util.spec_from_file_location("generate", CONFIGS / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    generate = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(generate)
    section: dict[str, Any] = generate.MASKS[mask]
    return section


def configuration(system: str, mask: str) -> dict[str, Any]:
    """Return the configuration of a system on phantoms, with a mask."""
    result: dict[str, Any] = copy.deepcopy(yaml.safe_load((CONFIGS / f"phantom_{system}.yaml").read_text("utf-8")))
    parts = [*result["training"]["datasets"], *result["validation"]["datasets"], result["inference"]["dataset"]]
    for part in parts:
        part["transforms"]["masking"].update(masking(mask))
    return result


def last_checkpoint(output: Path, mask: str, system: str) -> Path:
    """Return where the weights of a training will be."""
    iterations = configuration(system, MASKS[0])["training"]["num_iterations"]
    return output / mask / system / f"model_{iterations - 1}.pt"


def write_start_of_elder(muse: Path, path: Path) -> None:
    """Write the weights of MuSE with the first step of ELDER: the same energy, trained on."""
    step = yaml.safe_load((CONFIGS / "phantom_elder.yaml").read_text("utf-8"))["model"]["step_size"]
    weights = weights_of(muse) | {"step_size.logarithm": torch.tensor(step).log()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": weights}, path)


def training(output: Path, mask: str, system: str) -> Training:
    """Return a training."""
    return Training(
        output / mask / system,
        configuration(system, MASKS[0] if mask == ANY else mask),
        output / "data",
        initialization=output / ANY / "elder_start.pt" if system == "elder" else None,
    )


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=MASKS)
    parser.add_argument("--systems", nargs="+", choices=WITH_MASK, default=WITH_MASK)
    arguments = parser.parse_args()
    output = arguments.output
    write_data(output / "data")
    run_trainings([training(output, ANY, system) for system in WITHOUT_MASK])
    write_start_of_elder(last_checkpoint(output, ANY, "muse"), output / ANY / "elder_start.pt")
    run_trainings([training(output, mask, system) for mask in arguments.masks for system in arguments.systems])


if __name__ == "__main__":
    main()
