"""Turn a run of configs/pretrained_2d4x.yaml into the weights that come with the package.

python -m projects.stability.run runs/stability --study long
python projects/pretrained/export.py runs/stability/long/seed_0/model_1699.pt --seed 0
"""

import argparse
from pathlib import Path

import torch
from direct.environment import load_model_config_from_name
from omegaconf import OmegaConf

import direct_deepen
from direct_deepen.engines.trained import load_trained
from direct_deepen.priors.pretrained import save_pretrained

CONFIGURATION = Path("configs/pretrained_2d4x.yaml")
OUTPUT = Path("direct_deepen/priors/weights/brain_phantom_2d4x.pt")
KEYS = ("hidden_channels", "num_layers", "activation", "weight")


def main() -> None:
    """Export the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seed", type=int, required=True, help="seed of the run")
    arguments = parser.parse_args()
    section = OmegaConf.load(CONFIGURATION).model
    model = OmegaConf.merge(load_model_config_from_name(section.model_name), section)
    settings = {key: model[key] for key in KEYS}
    energy = load_trained(arguments.checkpoint, CONFIGURATION)
    OUTPUT.parent.mkdir(exist_ok=True)
    save_pretrained(
        OUTPUT,
        energy,
        settings,
        {
            "data": "100 phantom volumes of 4 slices, 64×64, 8 coils, noise 0.007 (direct-deepen phantom, seed 1)",
            "mask": "two-dimensional Gaussian density, 4 times",
            "configuration": CONFIGURATION.read_text(encoding="utf-8"),
            "noise_std": model["noise_std"],
            "seed": arguments.seed,
            "checkpoint": arguments.checkpoint.name,
            "direct_deepen_version": direct_deepen.__version__,
            "torch_version": str(torch.__version__),
        },
    )
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
