"""Draw an energy around true images.

Evaluates an energy E, and the cost C of the data, on planes of images x + α_z z + α_s s around fully sampled images x:
s is the aliasing that SENSE leaves, z noise of the norm of s. A good energy has its minimum near (0, 0). Prints where
the minima lie; draws the planes as PNG, or as a page that any browser shows without a network.
"""

import argparse
from pathlib import Path

import torch

from direct_deepen.cli.verbosity import stage
from direct_deepen.errors import require
from direct_deepen.priors import depends_on_noise
from direct_deepen.progress import progress_bar

EXAMPLES = """\
example:
  direct-deepen landscape runs/demo/deepen/model_449.pt --cfg configs/demo_deepen.yaml \\
      --data-root runs/demo/data/test --slices 1 2 3 --html landscape.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add weights, data and outputs."""
    parser.add_argument("weights", metavar="WEIGHTS", help="checkpoint of `direct train`, or the word pretrained")
    parser.add_argument(
        "--cfg", type=Path, required=True, help="configuration: its inference dataset, and the model of a checkpoint"
    )
    parser.add_argument("--data-root", type=Path, required=True, help="folder of fully sampled volumes")
    parser.add_argument("--volume", metavar="NAME", help="file in that folder (default: the first)")
    parser.add_argument("--slices", type=int, nargs="+", metavar="N", help="from 1 (default: the middle one)")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of the noise direction (default: 0)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="picture of the planes")
    parser.add_argument("--html", type=Path, help="page with one plane after another")


def run(args: argparse.Namespace) -> None:
    """Draw the landscapes of an energy around slices of a volume."""
    from direct_deepen.data.cases import cases, coil_maps_of, inference_dataset
    from direct_deepen.engines.trained import load_system, load_trained, pretrained_for
    from direct_deepen.evaluation.landscape import landscape
    from direct_deepen.pages.html_page import write_view
    from direct_deepen.pages.landscape_view import landscape_view

    energy = pretrained_for(args.cfg) if args.weights == "pretrained" else load_trained(Path(args.weights), args.cfg)
    if depends_on_noise(energy):
        energy = energy.at_noise(load_system(args.cfg).settings.noise_std)
    dataset = inference_dataset(args.cfg, args.data_root)
    volume = args.volume or min(path.name for path in dataset.volume_indices)
    with stage(f"reading {volume}"):
        of_volume = cases(dataset, volume=volume, coil_maps=coil_maps_of(args.cfg))
        found = list(progress_bar(of_volume, name="read", unit="slice"))
    numbers = args.slices or [(len(found) + 1) // 2]
    for number in numbers:
        require(1 <= number <= len(found), f"--slices has {number}; allowed with {volume}: 1 to {len(found)}")
    generator = torch.Generator().manual_seed(args.seed)
    landscapes = {}
    for number in progress_bar(numbers, name="slices", unit="slice"):
        case = found[number - 1]
        A, masked_kspace = case.problem.A, case.problem.masked_kspace
        name = f"{volume}, slice {number}"
        with stage(name):
            landscapes[name] = landscape(A, masked_kspace, energy, case.reference, generator=generator, progress=True)
    view = landscape_view(f"Energy landscape of {args.weights}", landscapes)
    print(view.text())
    for path in write_view(view, range(len(landscapes)), args.out, args.html):
        print(f"wrote {path}")
