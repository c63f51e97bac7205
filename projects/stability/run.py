"""Does contrastive training hold, and why? Train many short runs with DIRECT and tabulate them.

    python -m projects.stability.run runs/stability --study seeds remedies noise

Studies, all on phantoms of 32×32 with 16 channels, 300 updates of score matching and 200 contrastive ones:

``seeds``     the defaults with seeds 0 to 19;
``remedies``  each remedy alone and each removed, seeds 0 to 2 (after ``seeds``, whose warm start they share);
``noise``     the data noise c·ε for c = 0.5, 1, √2, 2, 3 at one fixed learning rate, seed 0;
``long``      configs/pretrained_2d4x.yaml, 64×64 with 32 channels and 1000 contrastive updates, seeds 0 to 2.

Data are written to OUTPUT/data on first use. Every run is `direct train` in a process and on a core of its own; runs
that are finished are not repeated, runs that were interrupted go on. Tables and curves are written by `report.py`.
"""

import argparse
import copy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from direct_deepen.errors import DeepenError
from projects.common import Training, run_trainings

BASE = Path("configs/demo_deepen.yaml")
LONG = Path("configs/pretrained_2d4x.yaml")

SMALL: dict[str, Any] = {"model.hidden_channels": 16, "training.num_iterations": 500}

PAPER: dict[str, Any] = {
    # The paper's text to the letter: noise of standard deviation 2ε² on the data, unit steps from Gaussian noise.
    "model.objective.data_noise_factor": 0.02,
    "model.objective.chains.start": "noise",
    "model.objective.chains.num_steps": 100,
    "model.objective.chains.step_size": 1.0,
    "model.noise_start_std": 1.0,
    "model.objective.energy_penalty": 0.0,
    # And nothing that is not in it.
    "model.objective.warm_start_iterations": 0,
    "training.gradient_clipping": 0.0,
    "training.lr_warmup_iter": 0,
    # The rate and the length that the other runs have after their warm start.
    "training.lr": 4.3e-4,
    "training.num_iterations": 200,
    "training.validation_steps": 199,
    "training.checkpointer.checkpoint_steps": 199,
}

NO_GUARD = {"model.objective.guard.max_rollbacks": 0}

AFTER_WARM_START = {key: value for key, value in PAPER.items() if key.startswith("training.")} | {
    "model.objective.warm_start_iterations": 0,
    "training.gradient_clipping": 1.0,
    "training.lr_warmup_iter": 20,
}
"""The 200 contrastive updates of the defaults, at their learning rate, as a training of their own."""

NOISE_STARTS = ("model.objective.chains.start", "model.objective.chains.num_steps", "model.noise_start_std")

REMEDIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # name: (what removing it from the defaults changes, what adding it to the paper's text changes)
    "data noise √2·ε": (
        {"model.objective.data_noise_factor": 0.02},
        {"model.objective.data_noise_factor": 2**0.5},
    ),
    "adapting step": ({"model.objective.chains.step_size": 1.0}, {"model.objective.chains.step_size": None}),
    "persistent chains": (
        {key: PAPER[key] for key in NOISE_STARTS},
        {"model.objective.chains.start": "persistent", "model.objective.chains.num_steps": 15},
    ),
    "energy penalty": ({"model.objective.energy_penalty": 0.0}, {"model.objective.energy_penalty": 0.01}),
    "score-matching warm start": ({}, {}),
    "gradient clipping": ({"training.gradient_clipping": 0.0}, {"training.gradient_clipping": 1.0}),
    "learning-rate warm-up": ({"training.lr_warmup_iter": 0}, {"training.lr_warmup_iter": 20}),
}
"""The warm start is not in the changes: all runs but the two that lack it begin where that of the defaults ended."""

ADDED: dict[str, dict[str, Any]] = {
    "SENSE starts for persistent chains": {"model.objective.chains.start": "sense"},
    "SENSE starts, no energy penalty": {
        "model.objective.chains.start": "sense",
        "model.objective.energy_penalty": 0.0,
    },
}

FACTORS = {"0.5": 0.5, "1": 1.0, "sqrt2": 2**0.5, "2": 2.0, "3": 3.0}


@dataclass(frozen=True)
class Run:
    """One training: where it goes, its configuration and what is changed in it."""

    folder: str
    seed: int
    name: str = ""
    size: int = 32
    base: Path = BASE
    changes: dict[str, Any] = field(default_factory=dict)
    initialization: str | None = None


def slug(name: str) -> str:
    """Return a name for a folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def runs_of(study: str) -> Iterator[Run]:
    """Yield the runs of a study."""
    if study == "long":
        yield from (Run(f"long/seed_{seed}", seed, size=64, base=LONG) for seed in range(3))
    elif study == "seeds":
        yield from (Run(f"seeds/seed_{seed}", seed, changes=SMALL) for seed in range(20))
    elif study == "noise":
        for name, factor in FACTORS.items():
            changes = SMALL | NO_GUARD | {
                "model.objective.data_noise_factor": factor,
                "model.weight": 1 / (2 * factor**2),
                # One rate throughout the contrastive phase: that of the defaults at its start.
                "training.lr": 4.3e-4,
                "training.lr_gamma": 1.0,
            }  # fmt: skip
            yield Run(f"noise/c_{name}/seed_0", 0, changes=changes)
    else:
        later = {f"without {name}": AFTER_WARM_START | removed for name, (removed, _) in REMEDIES.items()}
        later |= {f"with {name}": AFTER_WARM_START | added for name, added in ADDED.items()}
        later |= {"paper": PAPER} | {f"only {name}": PAPER | added for name, (_, added) in REMEDIES.items()}
        # All names with one seed before any with the next: a study that is cut short still has every row.
        for seed in range(3):
            for name, changes in later.items():
                cold = name in ("paper", "without score-matching warm start") or (
                    name.startswith("only") and name != "only score-matching warm start"
                )
                yield Run(
                    f"remedies/{slug(name)}/seed_{seed}",
                    seed,
                    name,
                    changes=SMALL | changes | NO_GUARD,
                    initialization=None if cold else f"seeds/seed_{seed}/model_299.pt",
                )


def configuration(run: Run) -> dict[str, Any]:
    """Return the configuration of a run."""
    result = copy.deepcopy(yaml.safe_load(run.base.read_text(encoding="utf-8")))
    for key, value in run.changes.items():
        *sections, name = key.split(".")
        section = result
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    for part in (
        result["training"]["datasets"][0],
        result["validation"]["datasets"][0],
        result["inference"]["dataset"],
    ):
        part["transforms"]["augmentation"]["pad"] = [run.size, run.size]
    return result


def write_data(output: Path, size: int) -> None:
    """Write the phantoms of a size, unless they are there."""
    volumes = {32: (24, 3, 3), 64: (100, 3, 5)}[size]
    for seed, (name, count) in enumerate(zip(("training", "validation", "test"), volumes, strict=True), start=1):
        folder = output / "data" / str(size) / name
        if not folder.is_dir():
            command = [Path(sys.executable).with_name("direct-deepen"), "phantom", folder, "--volumes", count]
            command += ["--slices", 4, "--size", size, "--coils", 8, "--seed", seed]
            subprocess.run([str(part) for part in command], check=True)


def main() -> None:
    """Run the studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--study", nargs="+", choices=["seeds", "remedies", "noise", "long"], default=["seeds"])
    arguments = parser.parse_args()
    output = arguments.output
    runs = [run for study in arguments.study for run in runs_of(study)]
    for size in {run.size for run in runs}:
        write_data(output, size)
    run_trainings(
        [
            Training(
                output / run.folder,
                configuration(run),
                output / "data" / str(run.size),
                run.seed,
                None if run.initialization is None else output / run.initialization,
            )
            for run in runs
        ]
    )


if __name__ == "__main__":
    try:
        main()
    except DeepenError as error:
        sys.exit(f"run.py: error: {error}")
