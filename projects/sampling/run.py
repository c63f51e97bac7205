"""Train the diffusion and the energies distilled from it, and write the study that compares them with DEEPEN.

    python -m projects.sampling.run runs/sampling --comparison runs/comparison

The data, and DEEPEN, are those of projects/comparison, which has to be run first. DPS and ALPS see no mask: they are
trained once, ALPS after its teacher. OUTPUT/study.yaml has every sampler with several numbers of evaluations, each with
a configuration of its own in OUTPUT/configurations, on fewer slices than the comparison has: a diffusion is slow.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from direct_deepen.errors import DeepenError, require
from projects.common import Training, run_trainings

PROBLEMS = ("2d4x", "2d6x")
STEPS = {"deepen": (10, 20, 50, 100, 200), "alps": (10, 25, 50, 100, 250), "dps": (50, 100, 200, 1000)}
"""Evaluations of a sample, on the first problem."""

COMPARED = {
    "2d4x": {"deepen": 100, "alps": 50, "dps": 1000},
    "2d6x": {"deepen": 100, "alps": 50, "dps": 200},
}
"""Those that are compared on each problem: the papers', but for DPS on the second, which a CPU could not bear."""

SAMPLES = 8
CANDIDATES = 4
"""As many for every method, on validation data."""

TUNED: dict[str, tuple[str, Sequence[float]]] = {
    "deepen": ("inference.prior_weight", np.geomspace(1.0, 4.0, CANDIDATES)),
    "alps": ("inference.noise_std", np.geomspace(0.0035, 0.028, CANDIDATES)),
    "dps": ("inference.guidance", np.geomspace(0.1, 3.0, CANDIDATES)),
}
"""What weighs data against prior."""

VOLUMES = {"test": 4, "validation": 1}
"""Volumes of the comparison's data that are used, a slice each."""

BY_SLICE = ("kspace", "phantom_image", "reconstruction_rss")
"""Arrays of a phantom file whose first dimension is the slice."""


def configuration(system: str) -> dict[str, Any]:
    """Return the committed configuration of a system."""
    content: dict[str, Any] = yaml.safe_load(Path(f"configs/phantom_{system}.yaml").read_text(encoding="utf-8"))
    return content


def weights(system: str, output: Path) -> Path:
    """Return where the last weights of DPS or ALPS will be."""
    return output / system / f"model_{configuration(system)['training']['num_iterations'] - 1}.pt"


def alps_training(output: Path, data: Path) -> Training:
    """Return the distillation, from the teacher of the same output."""
    content = configuration("alps")
    content["model"]["objective"]["teacher_checkpoint"] = str(weights("dps", output))
    return Training(output / "alps", content, data)


def sampling_changes(system: str, evaluations: int) -> dict[str, Any]:
    """Return the settings of a sampler with so many evaluations a sample."""
    if system == "deepen":
        # From SENSE, in the metric of the data: no step is spent that is not counted.
        chain = {"name": "langevin", "start": "sense", "preconditioner": 0.3, "keep": 1}
        return {**chain, "num_steps": evaluations}
    if system == "alps":
        inner_steps = 5
        return {"inner_steps": inner_steps, "num_levels": evaluations // inner_steps}
    return {"num_steps": evaluations}


def method(system: str, evaluations: int, comparison: Path, output: Path) -> dict[str, Any]:
    """Write the configuration of a sampler and return its section of the study."""
    content = configuration(system)
    content["model"]["inference"].update(sampling_changes(system, evaluations) | {"num_samples": SAMPLES})
    path = output / "configurations" / f"{system}_{evaluations}.yaml"
    write_yaml(path, content)
    trained = comparison / "{problem}" / "deepen" / weights("deepen", comparison).name
    key, values = TUNED[system]
    return {
        "configuration": str(path),
        "checkpoint": str(trained if system == "deepen" else weights(system, output)),
        "tune": {"key": key, "values": [float(f"{value:.3g}") for value in values]},
    }


def write_study(comparison: Path, output: Path) -> None:
    """Write what `direct-deepen benchmark` needs."""
    methods = {
        f"{system}_{evaluations}": method(system, evaluations, comparison, output)
        | {
            "problems": [
                problem for problem in PROBLEMS if problem == PROBLEMS[0] or COMPARED[problem][system] == evaluations
            ]
        }
        for system in STEPS
        for evaluations in STEPS[system]
    }
    most_probable = methods["deepen_100"] | {"configuration": "configs/phantom_deepen.yaml"}
    study = {
        "test": str(output / "data" / "test"),
        "validation": str(output / "data" / "validation"),
        "reference": "deepen_100",
        "seed": 0,
        "problems": {name: str(comparison / "problems" / f"{name}.yaml") for name in PROBLEMS},
        "methods": {"deepen_map": most_probable} | methods,
    }
    write_yaml(output / "study.yaml", study)


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a YAML file, and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def write_slices(comparison: Path, output: Path) -> None:
    """Write a slice of each of the first volumes of the comparison: what the samplers are compared on."""
    for part, count in VOLUMES.items():
        folder = output / "data" / part
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((comparison / "data" / part).glob("*.h5"))[:count]:
            with h5py.File(path) as source, h5py.File(folder / path.name, "w") as target:
                target.attrs.update(source.attrs)
                for name, dataset in source.items():
                    target[name] = dataset[:1] if name in BY_SLICE else dataset[()]


def main() -> None:
    """Train, and write the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--comparison", type=Path, required=True, help="the folder that projects/comparison filled")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    output, comparison = arguments.output, arguments.comparison
    require((comparison / "data").is_dir(), f"{comparison}: no data; run projects/comparison/run.py first")
    write_slices(comparison, output)
    write_study(comparison, output)
    data = comparison / "data"
    trainings = [Training(output / "dps", configuration("dps"), data), alps_training(output, data)]
    # One after the other: the second learns from the first.
    for training in trainings:
        run_trainings([training], device=arguments.device)


if __name__ == "__main__":
    try:
        main()
    except DeepenError as error:
        sys.exit(f"run.py: error: {error}")
