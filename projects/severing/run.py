"""Train with and without the gradient through the chain: what does cutting it cost, and what does it save.

    python -m projects.stability.run runs/stability --study seeds   # the data, and the warm start that both arms share
    python projects/severing/run.py runs/severing --stability runs/stability

Severed (DEEPEN, equation 13): the loss is E(x⁺ + n) − E(x⁻), with x⁻ a constant. Unsevered (equation 12): the loss is
C(x⁺ + n) − C(x⁻), with ½‖Ax⁻ − b‖², and its gradient goes back through every Langevin step to the weights. Everything
else is the same: 32×32, 16 channels, chains of K unit steps from SENSE, an energy penalty of 0.01, 100 updates with
Adam at 2e-4, the same draws.
Every run is a process of its own, for its peak memory. Writes severing.csv, severing.md and severing.png.
"""

import argparse
import csv
import multiprocessing
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

from direct_deepen import Energy, SenseOperator, mm_map, sense
from direct_deepen.data.cases import cases, inference_dataset
from direct_deepen.engines.trained import load_trained
from direct_deepen.evaluation.metrics import quality
from direct_deepen.machine import peak_memory_mb
from direct_deepen.objectives import contrastive_loss, energy_unit
from direct_deepen.physics.noise import complex_normal

mpl.use("Agg")
import matplotlib.pyplot as plt

CONFIGURATION = Path("configs/demo_deepen.yaml")
NOISE_STD, FACTOR = 0.01, 2**0.5
UPDATES, BATCH, RATE, PENALTY = 100, 4, 2e-4, 0.01
ARMS = [("severed", 5), ("unsevered", 5), ("severed", 15), ("unsevered", 15)]

Data = dict[str, torch.Tensor]


def load(folder: Path) -> Data:
    """Return all slices of a folder as one batch."""
    found = list(cases(inference_dataset(CONFIGURATION, folder, transforms={"augmentation": {"pad": [32, 32]}})))
    return {
        "maps": torch.cat([case.problem.A.sensitivity_map for case in found]),
        "mask": torch.cat([case.problem.A.sampling_mask for case in found]),
        "kspace": torch.cat([case.problem.masked_kspace for case in found]),
        "reference": torch.cat([case.reference for case in found]),
    }


def data_cost(A: SenseOperator, kspace: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return ½‖Ax − b‖² with a graph, real (batch,)."""
    return 0.5 * torch.view_as_real(A.forward(image) - kspace).square().flatten(1).sum(dim=1)


def chain(
    A: SenseOperator, kspace: torch.Tensor, energy: Energy, steps: int, draws: torch.Generator, *, graph: bool
) -> torch.Tensor:
    """Return the end of Langevin chains of unit step from SENSE, with or without the graph to the weights."""
    x = sense(A, kspace)
    x = x + NOISE_STD * complex_normal(x.shape, generator=draws, dtype=x.dtype)
    for _ in range(steps):
        variable = x if x.requires_grad else x.requires_grad_()
        (prior_gradient,) = torch.autograd.grad(energy(variable).sum(), variable, create_graph=graph)
        noise = complex_normal(x.shape, generator=draws, dtype=x.dtype)
        x = x - A.normal(x) + A.adjoint(kspace) - prior_gradient + NOISE_STD * noise
        if not graph:
            x = x.detach()
    return x


def train(arm: str, steps: int, seed: int, checkpoint: Path, data: Data, test: Data, answers: Any) -> None:
    """Train one arm and put its figures into the queue."""
    torch.set_num_threads(1)
    before = peak_memory_mb()
    energy = load_trained(checkpoint, checkpoint.parent / "configuration.yaml").train()
    optimizer = torch.optim.Adam(energy.parameters(), lr=RATE)
    draws = torch.Generator().manual_seed(seed)
    seconds, done = 0.0, 0
    for _ in range(UPDATES):
        index = torch.randint(len(data["mask"]), (BATCH,), generator=draws)
        A, kspace = SenseOperator(data["maps"][index], data["mask"][index]), data["kspace"][index]
        reference = data["reference"][index]
        begin = time.perf_counter()
        sample = chain(A, kspace, energy, steps, draws, graph=arm == "unsevered")
        true = reference + FACTOR * NOISE_STD * complex_normal(reference.shape, generator=draws, dtype=reference.dtype)
        sample = sample.detach() if arm == "severed" else sample
        energies = energy(true), energy(sample)
        loss = contrastive_loss(*energies, penalty=PENALTY / energy_unit(reference[0].numel(), NOISE_STD))
        if arm == "unsevered":
            loss = loss + (data_cost(A, kspace, true) - data_cost(A, kspace, sample)).mean()
        if not bool(torch.isfinite(loss)):
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(energy.parameters(), 1.0)
        optimizer.step()
        seconds += time.perf_counter() - begin
        done += 1
    peak = peak_memory_mb()
    image = mm_map(SenseOperator(test["maps"], test["mask"]), test["kspace"], energy).image
    scores = [quality(x, r).psnr for x, r in zip(image, test["reference"], strict=True)]
    answers.put(
        {
            "arm": arm,
            "steps": steps,
            "seed": seed,
            "updates": done,
            "psnr": f"{np.mean(scores):.3f}",
            "seconds_per_update": f"{seconds / max(1, done):.4f}",
            "peak_memory_mb": f"{peak - before:.1f}",
        }
    )


def report(output: Path, rows: list[dict[str, Any]]) -> None:
    """Write table and figure."""
    lines = [
        "| chain | steps | MAP (dB), seeds 0 to 2 | seconds an update | peak memory added (MB) |",
        "|---|---|---|---|---|",
    ]
    for arm, steps in ARMS:
        mine = [row for row in rows if (row["arm"], int(row["steps"])) == (arm, steps)]
        means = {key: np.mean([float(row[key]) for row in mine]) for key in ("seconds_per_update", "peak_memory_mb")}
        scores = ", ".join(f"{float(row['psnr']):.2f}" for row in mine)
        lines.append(
            f"| {arm} | {steps} | {scores} | {means['seconds_per_update']:.3f} | {means['peak_memory_mb']:.0f} |"
        )
    (output / "severing.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    figure, panels = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    labels = {
        "psnr": "PSNR of MAP (dB)",
        "seconds_per_update": "seconds an update",
        "peak_memory_mb": "peak memory added (MB)",
    }
    for panel, (key, label) in zip(panels, labels.items(), strict=True):
        for arm in ("severed", "unsevered"):
            mine = [row for row in rows if row["arm"] == arm]
            name = "gradient cut" if arm == "severed" else "backpropagated through the chain"
            panel.plot(
                [int(r["steps"]) for r in mine], [float(r[key]) for r in mine], "o", label=name, fillstyle="none"
            )
        panel.set(xlabel="Langevin steps", xticks=sorted({int(row["steps"]) for row in rows}), ylabel=label)
    panels[2].legend(fontsize=8)
    figure.savefig(output / "severing.png", dpi=120)
    print("\n".join(lines))


def main() -> None:
    """Run all arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--stability", type=Path, required=True, help="output of projects/stability/run.py")
    arguments = parser.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    folder = arguments.stability / "data" / "32"
    torch.set_num_threads(1)
    data, test = load(folder / "training"), load(folder / "validation")
    context = multiprocessing.get_context("fork")
    rows = []
    for arm, steps in ARMS:
        for seed in range(3):
            answers = context.SimpleQueue()
            checkpoint = arguments.stability / f"seeds/seed_{seed}/model_299.pt"
            process = context.Process(target=train, args=(arm, steps, seed, checkpoint, data, test, answers))
            process.start()
            rows.append(answers.get())
            process.join()
    with (output / "severing.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    report(output, rows)


if __name__ == "__main__":
    main()
