"""Turn the checkpoint of a trained diffusion into one that the training of an energy may start from.

    python -m projects.pretrained.energy_of_diffusion runs/brain/diffusion/model_7999.pt runs/brain/start.pt

E_σ(x) = ½‖x − D(x, σ)‖² of a `NoiseConditionalEnergy` has the network of a `DiffusionDenoiser` with `edm`: the weights,
here the averaged ones, are the same under another name. `direct train … --initialization-checkpoint` reads the result.
"""

import argparse
from pathlib import Path

import torch

AVERAGED = "averaged.average."


def energy_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the energy by name, of those of the model of a diffusion."""
    averages = {name.removeprefix(AVERAGED): value for name, value in weights.items() if name.startswith(AVERAGED)}
    found = {
        f"averaged.{part}.denoiser.{name}": value.clone()
        for part in ("module", "average")
        for name, value in averages.items()
    }
    return found | {"averaged.updates": torch.zeros_like(weights["averaged.updates"])}


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("diffusion", type=Path)
    parser.add_argument("energy", type=Path)
    args = parser.parse_args()
    content = torch.load(args.diffusion, map_location="cpu", weights_only=True)
    torch.save({"model": energy_weights(content["model"])}, args.energy)


if __name__ == "__main__":
    main()
