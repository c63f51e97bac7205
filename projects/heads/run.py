"""Train methods on heads of real anatomy, 160×160, one training for all masks, and write what the benchmark needs.

    python -m projects.heads.run IMAGES runs/heads --systems deepen vsharp --seeds 0 1 2
    direct-deepen benchmark runs/heads/table --study runs/heads/table.yaml --jobs 2
    python -m projects.heads.report runs/heads/table projects/heads/results

IMAGES is a folder of magnitude images whose paths name the subject, patient01 and so on; OUTPUT/data is simulated from
them on first use. Configurations are those of the phantoms with another size, with every mask of configs/masks in one
training: a batch has one. A training is a core's, and those that have ended are not repeated; the study has the methods
whose trainings have ended, and the weights that come with the package, which were trained on other draws of the same
images with noise of any level.
"""

import argparse
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from direct_deepen.engines.trained import write_pretrained
from direct_deepen.errors import DeepenError, require
from direct_deepen.evaluation.classical import CLASSICAL, ZERO_FILLED
from projects.common import Training, exit_code, run_trainings
from projects.comparison.run import MASKS, OF_DIRECT, masking, write_start_of_elder, write_yaml

SIZE = 160
NOISE_STD = 0.007
"""η of the data, that of ε₀ = 0.01: methods that know one noise level have it."""
SYSTEMS = ("deepen", "muse", "elder", "mol", "pnp_ista", *OF_DIRECT)
PRETRAINED = "brain"
PRETRAINED_CONFIGURATION = Path("configs/brain_deepen.yaml")
SIMULATION = (
    "--seed", "2", "--size", str(SIZE), "--whole-object", "--pixel-size", "0.7", "1.8", "--coils", "4", "12",
    "--noise-std", str(NOISE_STD), str(NOISE_STD), "--subject", "patient[0-9]+",
    "--validation-subjects", "patient04", "--test-subjects", "patient09", "patient20",
)  # fmt: skip


def source(system: str) -> Path:
    """Return the committed configuration that a system's comes from."""
    return Path("configs") / f"phantom_{system}.yaml"


def configuration(system: str) -> dict[str, Any]:
    """Return the configuration of a system: of its phantoms, at this size, with every mask in training."""
    result: dict[str, Any] = yaml.safe_load(source(system).read_text(encoding="utf-8"))
    (template,) = result["training"]["datasets"]
    template["transforms"]["augmentation"]["pad"] = [SIZE, SIZE]
    result["training"]["datasets"] = [dataset(template, mask) for mask in MASKS]
    result["validation"]["datasets"] = [dataset(template, MASKS[0])]
    result["inference"]["dataset"] = dataset(template, MASKS[0])
    if system not in OF_DIRECT:
        result["model"]["intensity_scale"] = "object"
    return result


def dataset(template: dict[str, Any], mask: str) -> dict[str, Any]:
    """Return the section of a dataset with a mask."""
    section = deepcopy(template)
    section["text_description"] = mask
    section["transforms"]["masking"].update(masking(mask))
    return section


def training(output: Path, system: str, seed: int) -> Training:
    """Return the training of a system; ELDER starts from the weights of MuSE, whose energy it has."""
    start = output / f"elder_start_{seed}.pt" if system == "elder" else None
    folder = output / f"{system}_{seed}"
    return Training(folder, configuration(system), output / "data", seed, initialization=start, keep_slices=False)


def checkpoint(planned: Training) -> Path:
    """Return where the last weights of a training will be."""
    return planned.folder / f"model_{planned.configuration['training']['num_iterations'] - 1}.pt"


def write_study(output: Path) -> None:
    """Write the problems, and the study of all that has been trained so far."""
    for mask in MASKS:
        content = configuration("deepen")
        content["inference"]["dataset"]["transforms"]["masking"].update(masking(mask))
        write_yaml(output / "problems" / f"{mask}.yaml", content)
    write_pretrained(PRETRAINED_CONFIGURATION, output / f"{PRETRAINED}.pt")
    methods: dict[str, Any] = {name: {"classical": name} for name in (ZERO_FILLED, *CLASSICAL)}
    methods[PRETRAINED] = section(PRETRAINED_CONFIGURATION, output / f"{PRETRAINED}.pt")
    for system in SYSTEMS:
        for folder in sorted(output.glob(f"{system}_[0-9]*")):
            if exit_code(folder) == 0:
                planned = training(output, system, int(folder.name.rpartition("_")[2]))
                methods[folder.name] = section(folder / "configuration.yaml", checkpoint(planned))
    content = {
        "test": str(output / "data" / "test"),
        "validation": str(output / "data" / "validation"),
        "reference": PRETRAINED,
        "seed": 0,
        "problems": {mask: str(output / "problems" / f"{mask}.yaml") for mask in MASKS},
        "methods": methods,
    }
    write_yaml(output / "table.yaml", content)


def section(configured: Path, weights: Path) -> dict[str, str]:
    """Return the section of a trained method in a study."""
    return {"configuration": str(configured), "checkpoint": str(weights)}


def main() -> None:
    """Simulate, train, write the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    data = args.output / "data"
    if not data.is_dir():
        command = [str(Path(sys.executable).with_name("direct-deepen")), "simulate", str(args.images), str(data)]
        subprocess.run([*command, *SIMULATION], check=True)
    first = [system for system in args.systems if system != "elder"]
    run_trainings([training(args.output, system, seed) for seed in args.seeds for system in first], device=args.device)
    if "elder" in args.systems:
        for seed in args.seeds:
            muse = training(args.output, "muse", seed)
            require(
                exit_code(muse.folder) == 0, f"{muse.folder}: no training that has ended; ELDER starts from its weights"
            )
            write_start_of_elder(source("elder"), checkpoint(muse), args.output / f"elder_start_{seed}.pt")
        run_trainings([training(args.output, "elder", seed) for seed in args.seeds], device=args.device)
    write_study(args.output)


if __name__ == "__main__":
    try:
        main()
    except DeepenError as error:
        sys.exit(f"run.py: error: {error}")
