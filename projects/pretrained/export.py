"""Turn a checkpoint of `direct train` into weights that come with the package.

    python -m projects.pretrained.export brain configs/brain_deepen.yaml CHECKPOINT --seed 0 --data "..." --mask "..."

Of a prior of all noise levels the averaged weights are taken.
"""

import argparse
from inspect import signature
from pathlib import Path

import torch
from direct.environment import load_model_config_from_name
from omegaconf import OmegaConf

import direct_deepen
from direct_deepen import priors
from direct_deepen.engines.trained import load_prior
from direct_deepen.priors.pretrained import save_pretrained

WEIGHTS = Path("direct_deepen/priors/weights")


def main() -> None:
    """Export the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the weights")
    parser.add_argument("configuration", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seed", type=int, required=True, help="seed of the run")
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--mask", required=True, help="with what masks")
    args = parser.parse_args()
    section = OmegaConf.load(args.configuration).model
    model = OmegaConf.merge(OmegaConf.structured(load_model_config_from_name(section.model_name)), section)
    trained = load_prior(args.checkpoint, args.configuration)
    kind = getattr(priors, type(trained).__name__)
    settings = OmegaConf.to_container(model, resolve=True)
    arguments = {key: settings[key] for key in signature(kind).parameters if key in settings}
    energy = kind(**arguments)
    energy.load_state_dict((trained.averaged.average if hasattr(trained, "averaged") else trained).state_dict())
    output = WEIGHTS / f"{args.name}.pt"
    provenance = {
        "data": args.data,
        "mask": args.mask,
        "configuration": args.configuration.read_text(encoding="utf-8"),
        "intensity_scale": model["intensity_scale"],
        "seed": args.seed,
        "checkpoint": args.checkpoint.name,
        "direct_deepen_version": direct_deepen.__version__,
        "torch_version": str(torch.__version__),
    }
    if hasattr(energy, "prior_noise_std"):
        provenance["noise_std"] = model["noise_std"]
    save_pretrained(output, energy, arguments, provenance)
    print(f"{output}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
