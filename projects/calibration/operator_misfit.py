"""What wrong coil maps cost MAP, and what noise by ring of k-space makes of it, at several largest ratios of levels.

    python -m projects.calibration.operator_misfit CONFIGURATION VOLUMES OUTPUT.csv --slices 3

Prints a table of PSNR: maps of DIRECT and ESPIRiT, and levels up to so many times the least.
"""

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch

from direct_deepen.data.cases import Case, cases, inference_dataset
from direct_deepen.data.coil_maps import COIL_MAPS
from direct_deepen.engines.trained import load_system, pretrained_for
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.tables import markdown_table, write_csv
from direct_deepen.inference import Map
from direct_deepen.inference.noise_by_ring import noise_by_ring
from direct_deepen.machine import available_cores, use_cores
from direct_deepen.physics.problem import Problem

RATIOS = (2.0, 4.0, 6.0, 12.0, math.inf)


def found_of(case: Case, inference: Map, prior: Any) -> dict[str, float]:
    """Return PSNR (dB) of MAP with white noise, and with levels by ring up to several times the least."""

    def psnr(problem: Problem) -> float:
        image = inference.solve(problem, prior).image * (problem.A.power > 0)
        return quality(image[0], case.reference[0]).psnr

    inference.noise_by_ring = False
    (noise_std,) = inference.noise_std_of(case.problem).tolist()
    levels = noise_by_ring(
        case.problem,
        partial(inference.weighted, prior),
        noise_std=noise_std,
        init=inference.solve(case.problem, prior).image,
        largest_ratio=math.inf,
    ).noise_std
    found = {"white": psnr(case.problem)}
    inference.noise_by_ring = True
    for ratio in RATIOS:
        limited = levels.clamp_max(ratio * levels.min())[None].to(case.reference.real.dtype)
        found[f"by ring, to {ratio:g}"] = psnr(case.problem.with_noise_by_ring(limited))
    return found


def main() -> None:
    """Reconstruct some slices in all ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", type=Path)
    parser.add_argument("volumes", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--slices", type=int, default=3)
    args = parser.parse_args()
    use_cores(set(available_cores()))
    prior, inference = pretrained_for(args.configuration), load_system(args.configuration).inference
    assert isinstance(inference, Map)
    rows = list[dict[str, Any]]()
    for maps in COIL_MAPS:
        dataset = inference_dataset(args.configuration, args.volumes)
        chosen = {(2 * number + 1) * len(dataset) // (2 * args.slices) for number in range(args.slices)}
        for case in cases(dataset, chosen=chosen, coil_maps=maps, cache=args.output.parent):
            with torch.no_grad():
                found = found_of(case, inference, prior)
            rows.append({"volume": case.volume, "maps": maps} | found)
            print(rows[-1], flush=True)
    write_csv(args.output, rows)
    print(markdown_table([{k: f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]))


if __name__ == "__main__":
    main()
