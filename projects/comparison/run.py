"""Train every method of the comparison, all on the same data, and write what `direct-deepen benchmark` needs.

    python -m projects.comparison.run runs/comparison                      # phantoms of 64×64, a training a core
    python -m projects.comparison.run runs/fastmri --data SPLIT --device cuda:0   # 320×320, see projects/deepen_fastmri

Without --data, phantoms are written to OUTPUT/data on first use. Every training goes to OUTPUT/<mask>/<system>; those
that have ended are not repeated, and those that were interrupted go on. MuSE and PnP-ISTA never see a mask: they are
trained once, in OUTPUT/any. ELDER starts from the weights of MuSE, whose energy it has. OUTPUT/problems gets a
configuration for every mask of the tables, a radial one included that nothing is trained on; OUTPUT/table1.yaml and
OUTPUT/table2.yaml are the studies of the two tables.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from direct.config.defaults import TrainingConfig

from direct_deepen.engines.checkpoints import weights_of
from direct_deepen.engines.trained import load_system
from direct_deepen.errors import DeepenError
from direct_deepen.evaluation.classical import CLASSICAL, ZERO_FILLED
from direct_deepen.inference import UnrolledGradient
from projects.common import Training, run_trainings

CONFIGS = Path("configs")
ANY = "any"
MASKS = ("2d4x", "2d6x", "1d2x", "1d4x")
MISMATCHED = ("2d4x", "2d6x", "1d2x")
"""Masks of Table II, each trained on and used on the others."""

RADIAL = {"name": "Radial", "accelerations": [4.0], "center_fractions": None}
"""DIRECT's Cartesian points on spokes; it finds the fully sampled disc by itself. Nothing is trained on it."""

HALF_STEP = "elder_half_step"
"""ELDER once more, with half its step and twice its iterations: nothing is trained for it."""

WITHOUT_MASK = ("muse", "pnp_ista")
WITH_MASK = ("deepen", "elder", "mol", "varnet", "vsharp")
OF_DIRECT = ("varnet", "vsharp")

VOLUMES = {"training": (100, 4), "validation": (4, 2), "test": (20, 2)}
"""Volumes and slices of each set of phantoms; the seed of a set is its place here, from 1."""

CANDIDATES = 17
"""As many as every classical method has for its λ."""

TUNED: dict[str, tuple[str, Sequence[float]]] = {
    "deepen": ("inference.prior_weight", np.geomspace(0.5, 8.0, CANDIDATES)),
    "muse": ("inference.prior_weight", np.geomspace(0.02, 2.0, CANDIDATES)),
    "pnp_ista": ("inference.step_size", np.linspace(0.3, 1.98, CANDIDATES)),
    "mol": ("inference.data_weight_factor", np.geomspace(0.1, 10.0, CANDIDATES)),
}
"""What weighs data against prior. ELDER and DIRECT's models learn it and have nothing to set afterwards."""


@dataclass(frozen=True)
class Plan:
    """Where things are, and of which size.

    Attributes
    ----------
    output
        Folder of everything that is made.
    data
        Folder of ``training``, ``validation`` and ``test``.
    full_size
        320×320 for fastMRI instead of 64×64 for phantoms.
    coil_maps
        ``direct`` or ``espirit``, for all but DIRECT's own models, which know DIRECT's only.
    """

    output: Path
    data: Path
    full_size: bool = False
    coil_maps: str = "direct"

    def source(self, system: str) -> Path:
        """Return the committed configuration of a system."""
        return CONFIGS / (f"{system}_2d4x.yaml" if self.full_size else f"phantom_{system}.yaml")

    def configuration(self, system: str, mask: str) -> dict[str, Any]:
        """Return the configuration of a system with a mask."""
        result: dict[str, Any] = yaml.safe_load(self.source(system).read_text(encoding="utf-8"))
        parts = [*result["training"]["datasets"], *result["validation"]["datasets"], result["inference"]["dataset"]]
        for part in parts:
            # What sees no mask in training is validated with the first.
            part["transforms"]["masking"].update(masking(MASKS[0] if mask == ANY else mask))
        if system not in OF_DIRECT:
            result["model"]["coil_maps"] = self.coil_maps
        return result

    def folder(self, system: str, mask: str) -> Path:
        """Return where a system that is trained with a mask goes."""
        return self.output / (ANY if system in WITHOUT_MASK else mask) / system

    def checkpoint(self, system: str, mask: str) -> Path:
        """Return where its last weights will be."""
        training = self.configuration(system, MASKS[0])["training"]
        iterations = training.get("num_iterations", TrainingConfig.num_iterations)
        return self.folder(system, mask) / f"model_{iterations - 1}.pt"

    def training(self, system: str, mask: str) -> Training:
        """Return a training."""
        start = self.output / ANY / "elder_start.pt" if system == "elder" else None
        return Training(self.folder(system, mask), self.configuration(system, mask), self.data, initialization=start)

    def write_start_of_elder(self) -> None:
        """Write the weights of MuSE with the first step of ELDER."""
        write_start_of_elder(self.source("elder"), self.checkpoint("muse", ANY), self.output / ANY / "elder_start.pt")

    def write_half_steps(self) -> None:
        """Write ELDER with half its learned step and, in its configuration, twice the iterations.

        What it learned bears no larger curvature than that of the mask it was trained with; a shorter step does.
        """
        content = self.configuration("elder", MASKS[0])
        content["model"]["inference"]["num_steps"] = 2 * unrolled_gradient_of(self.source("elder")).num_steps
        write_yaml(self.half_step_configuration, content)
        for mask in MISMATCHED:
            trained = self.checkpoint("elder", mask)
            weights = weights_of(trained)
            weights["step_size.logarithm"] = weights["step_size.logarithm"] - math.log(2)
            path = self.folder(HALF_STEP, mask) / trained.name
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"model": weights}, path)

    @property
    def half_step_configuration(self) -> Path:
        """Where its configuration is."""
        return self.output / f"{HALF_STEP}.yaml"

    # ---- The tables

    def problem(self, mask: str) -> Path:
        """Return the configuration whose inference dataset is the problem of a mask."""
        return self.output / "problems" / f"{mask}.yaml"

    def write_studies(self) -> None:
        """Write the problems, and the studies of both tables."""
        for mask in (*MASKS, "radial"):
            write_yaml(self.problem(mask), self.configuration("deepen", mask))
        classical = {name: {"classical": name} for name in (ZERO_FILLED, *CLASSICAL)}
        systems = ("deepen", "muse", "pnp_ista", "mol", "elder", *OF_DIRECT)
        trained = {system: self.method(system, "{problem}", tuned=True) for system in systems}
        self.write_study("table1", MASKS, "deepen", classical | trained)
        # Nothing is tuned: that would show a method the other mask.
        mismatched = {
            f"{system}_{mask}": self.method(system, mask, tuned=False)
            for system in ("deepen", "elder")
            for mask in MISMATCHED
        }
        for mask in MISMATCHED:
            checkpoint = self.folder(HALF_STEP, mask) / self.checkpoint("elder", mask).name
            section = {"configuration": str(self.half_step_configuration), "checkpoint": str(checkpoint)}
            mismatched[f"{HALF_STEP}_{mask}"] = section
        self.write_study(
            "table2", (*MISMATCHED, "radial"), f"deepen_{MISMATCHED[0]}", {"sense": classical["sense"]} | mismatched
        )

    def method(self, system: str, mask: str, *, tuned: bool) -> dict[str, Any]:
        """Return the section of a trained method in a study."""
        section: dict[str, Any] = {
            "configuration": str(self.source(system)),
            "checkpoint": str(self.checkpoint(system, mask)),
        }
        if tuned and system in TUNED:
            key, values = TUNED[system]
            section["tune"] = {"key": key, "values": [float(f"{value:.3g}") for value in values]}
        return section

    def write_study(self, name: str, problems: Sequence[str], reference: str, methods: dict[str, Any]) -> None:
        """Write a study."""
        content = {
            "test": str(self.data / "test"),
            "validation": str(self.data / "validation"),
            "reference": reference,
            "seed": 0,
            "problems": {mask: str(self.problem(mask)) for mask in problems},
            "methods": methods,
        }
        write_yaml(self.output / f"{name}.yaml", content)


def write_start_of_elder(configuration: Path, muse: Path, path: Path) -> None:
    """Write the weights of a checkpoint of MuSE with the first step of a configuration of ELDER."""
    step = torch.tensor(unrolled_gradient_of(configuration).step_size).log()
    torch.save({"model": weights_of(muse) | {"step_size.logarithm": step}}, path)


def unrolled_gradient_of(path: Path) -> UnrolledGradient:
    """Return the inference of a configuration of ELDER."""
    inference = load_system(path).inference
    assert isinstance(inference, UnrolledGradient)
    return inference


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a YAML file, and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def masking(mask: str) -> dict[str, Any]:
    """Return the sampling of a mask, from where all configurations have it."""
    if mask == "radial":
        return RADIAL
    overlay = yaml.safe_load((CONFIGS / "masks" / f"{mask}.yaml").read_text(encoding="utf-8"))
    section: dict[str, Any] = overlay["transforms"]["masking"]
    return section


def write_phantoms(folder: Path) -> None:
    """Write the phantoms, unless they are there."""
    for seed, (name, (volumes, slices)) in enumerate(VOLUMES.items(), start=1):
        if not (folder / name).is_dir():
            command = [Path(sys.executable).with_name("direct-deepen"), "phantom", folder / name]
            command += ["--volumes", volumes, "--slices", slices, "--size", 64, "--coils", 8, "--seed", seed]
            subprocess.run([str(part) for part in command], check=True)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, help="folder of training, validation and test of fastMRI files")
    parser.add_argument("--coil-maps", choices=("direct", "espirit"), default="direct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=MASKS)
    parser.add_argument("--systems", nargs="+", choices=WITH_MASK, default=WITH_MASK)
    arguments = parser.parse_args()
    output = arguments.output
    plan = Plan(output, arguments.data or output / "data", arguments.data is not None, arguments.coil_maps)
    if not plan.full_size:
        write_phantoms(plan.data)
    plan.write_studies()
    run_trainings([plan.training(system, ANY) for system in WITHOUT_MASK], device=arguments.device)
    plan.write_start_of_elder()
    trainings = [plan.training(system, mask) for mask in arguments.masks for system in arguments.systems]
    run_trainings(trainings, device=arguments.device)
    if "elder" in arguments.systems and set(MISMATCHED) <= set(arguments.masks):
        plan.write_half_steps()


if __name__ == "__main__":
    try:
        main()
    except DeepenError as error:
        sys.exit(f"run.py: error: {error}")
