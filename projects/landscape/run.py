"""Energy landscapes around images, as in Fig. 2 of the paper.

    python -m projects.stability.run runs/stability --study long
    python projects/landscape/run.py projects/landscape/results --stability runs/stability

E on x + α_z z + α_s s: z is complex Gaussian noise of the norm of s, s = x₀ − x the aliasing that SENSE leaves. A good
energy has its minimum near (0, 0). Compared at 4 and 6 times: the energy after contrastive training and the one after
score matching alone (the warm start of the same run). Writes landscape.csv, landscape.md and landscape_*.png.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
import yaml

from direct_deepen import Energy
from direct_deepen.data.cases import Case, cases, inference_dataset
from direct_deepen.engines.trained import load_trained
from direct_deepen.evaluation.landscape import landscape, minimiser
from direct_deepen.pages.landscape_view import draw_contours, image_at_minimum

mpl.use("Agg")
import matplotlib.pyplot as plt

CONFIGURATION = Path("configs/pretrained_2d4x.yaml")
MASKS = ("2d4x", "2d6x")
SLICES = (0, 6, 13)


def energies(run: Path) -> dict[str, Energy]:
    """Return the energies of a run after score matching and after contrastive training."""
    iterations = {"score matching": 699, "contrastive": 1699}
    return {name: load_trained(run / f"model_{number}.pt", CONFIGURATION) for name, number in iterations.items()}


def test_slices(mask: str, data: Path) -> list[Case]:
    """Return test slices under a mask of configs/masks."""
    transforms = yaml.safe_load(Path(f"configs/masks/{mask}.yaml").read_text(encoding="utf-8"))["transforms"]
    return list(cases(inference_dataset(CONFIGURATION, data, transforms=transforms)))


def main() -> None:
    """Draw all landscapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--stability", type=Path, required=True, help="output of projects/stability/run.py")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run")
    arguments = parser.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    models = energies(arguments.stability / f"long/seed_{arguments.seed}")
    rows: list[dict[str, Any]] = []
    for mask in MASKS:
        found = test_slices(mask, arguments.stability / "data/64/test")
        figure, axes = plt.subplots(len(models), 2 * len(SLICES), figsize=(15, 5), layout="constrained")
        for column, number in enumerate(SLICES):
            for row, (name, energy) in enumerate(models.items()):
                case, generator = found[number], torch.Generator().manual_seed(number)
                plane = landscape(
                    case.problem.A, case.problem.masked_kspace, energy, case.reference, generator=generator
                )
                values = plane.energy
                alpha_s, alpha_z = minimiser(values)
                rows.append(
                    {
                        "mask": mask,
                        "case": f"{case.volume}#{number}",
                        "energy": name,
                        "minimiser α_s": f"{alpha_s:.2f}",
                        "minimiser α_z": f"{alpha_z:.2f}",
                        "E at the image": f"{float(values[20, 20]):.3f}",
                        "E at the minimiser": f"{float(values.min()):.3f}",
                        "E at SENSE": f"{float(values[40, 20]):.3f}",
                        "‖s‖/‖x‖": f"{float(plane.structure.norm() / plane.image.norm()):.3f}",
                    }
                )
                draw_contours(axes[row, 2 * column], values, name)
                picture = axes[row, 2 * column + 1]
                picture.imshow(image_at_minimum(plane), cmap="gray")
                picture.set_title("image there, without z", fontsize=8)
                picture.set_axis_off()
        figure.savefig(output / f"landscape_{mask}.png", dpi=100)
        plt.close(figure)
    with (output / "landscape.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    head = "| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]) + "\n"
    body = "".join("| " + " | ".join(row.values()) + " |\n" for row in rows)
    (output / "landscape.md").write_text(head + body, encoding="utf-8")
    print(head + body)


if __name__ == "__main__":
    main()
