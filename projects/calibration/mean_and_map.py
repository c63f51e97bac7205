"""Why is the mean of samples below MAP? Its error by number of chains, and what is left with endlessly many.

    python -m projects.calibration.mean_and_map runs/calibration/phantom/2d4x/seed_0 TEST

FOLDER is one calibration of `projects.calibration.run`, whose samples of TEST are used again. The mean of S chains has
the error of the exact mean, and a Monte-Carlo error whose power is V/S, V that of the chain means about their mean:
MSE(∞) = MSE(S) − V/S, without a bias. Writes mean_and_map.md there.
"""

import argparse
from pathlib import Path

import torch

from direct_deepen.data.cases import cases, coil_maps_of, inference_dataset, intensity_scale_of
from direct_deepen.engines.trained import load_system, pretrained_for
from direct_deepen.evaluation.tables import markdown_table
from direct_deepen.files import write_text
from direct_deepen.inference import Langevin

CHAINS = (1, 2, 4, 8, 16)


def mean_square(image: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the mean square of |x| − |r|."""
    return float((image.abs() - reference.abs()).double().square().mean())


def errors(chains: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    """Return mean squares of the error of the mean of some chains, complex (chain, keep, batch, height, width)."""
    means = chains.mean(dim=1)
    found = {f"mean of {count} chains": mean_square(means[:count].mean(dim=0), reference) for count in CHAINS}
    found["one sample"] = mean_square(chains[0, -1], reference)
    # Of the part in phase with the mean, which is what |x| shows of it.
    mean = means.mean(dim=0)
    real = (means * (mean / mean.abs().clamp_min(1e-12)).conj()).real
    variance = float(real.var(dim=0).double().mean())
    found["mean of endlessly many"] = found[f"mean of {len(means)} chains"] - variance / len(means)
    return found


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("test", type=Path)
    args = parser.parse_args()
    configuration = args.folder / "configuration.yaml"
    prior, system = pretrained_for(configuration), load_system(configuration)
    inference = system.inference
    assert isinstance(inference, Langevin)
    found: dict[str, list[float]] = {}
    dataset = inference_dataset(configuration, args.test)
    for case in cases(dataset, coil_maps=coil_maps_of(configuration), cache=args.folder / "samples" / "test"):
        path = args.folder / "samples" / "test" / f"{case.volume}#{case.slice_number}.pt"
        if not path.is_file():
            continue
        content = torch.load(path, weights_only=True)
        chains = content["images"].unflatten(0, (content["num_chains"], -1))
        with torch.no_grad():
            most_probable = inference.solve(case.problem, prior).image
        peak = float(case.reference.abs().max()) ** 2
        squares = {"MAP": mean_square(most_probable, case.reference)} | errors(chains, case.reference)
        for name, error in squares.items():
            found.setdefault(name, []).append(float(10 * torch.log10(torch.tensor(peak / error))))
    rows = [
        {"image": name, "PSNR (dB)": f"{sum(values) / len(values):.2f}", "slices": len(values)}
        for name, values in found.items()
    ]
    table = markdown_table(rows)
    write_text(args.folder / "mean_and_map.md", table)
    print(f"scale of intensities: {intensity_scale_of(configuration)}\n{table}")


if __name__ == "__main__":
    main()
