"""Train the demo's DEEPEN with seeds 0 to 4 and tabulate whether each run holds.

    python projects/demo/seeds.py runs/seeds --data runs/demo/data

For every seed: the largest |E⁺ − E⁻|/max(E⁺, E⁻, 1) of any update after the warm start, the PSNR of MAP on the
validation volumes right after the warm start and at the end, and their difference. Runs that are finished are not
repeated. Writes seeds.csv and seeds.md.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

CONFIGURATION = Path("configs/demo_deepen.yaml")
PSNR = "val/validation/fastmri_psnr_metric"


def train(output: Path, data: Path, seed: int) -> Path:
    """Train with DIRECT unless done, and return the run's folder."""
    run = output / f"seed_{seed}"
    if not (run / "model_449.pt").is_file():
        roots = ["--training-root", data / "training", "--validation-root", data / "validation"]
        options = ["--cfg", CONFIGURATION, "--name", run.name, "--seed", seed, "--device", "cpu", "--num-workers", 0]
        with (output / f"{run.name}.log").open("w", encoding="utf-8") as log:
            # The command of this interpreter's environment, whether or not that is on the PATH.
            command = [Path(sys.executable).with_name("direct"), "train", output, *roots, *options]
            subprocess.run([str(part) for part in command], stdout=log, stderr=log, check=True)
    return run


def summarize(run: Path, seed: int) -> dict[str, str | int]:
    """Read what DIRECT logged of a run."""
    lines = [json.loads(line) for line in (run / "metrics.json").read_text(encoding="utf-8").splitlines()]
    validated = [line for line in lines if PSNR in line]
    warm = next(line[PSNR] for line in validated if line["iteration"] == 299)
    end = next(line[PSNR] for line in validated if line["iteration"] == 449)
    last = lines[-1]
    return {
        "seed": seed,
        "largest_relative_gap": f"{last['train/largest_relative_gap']:.3f}",
        "psnr_warm_start": f"{warm:.2f}",
        "psnr_end": f"{end:.2f}",
        "gain": f"{end - warm:.2f}",
        "curvature": f"{last['train/curvature']:.3f}",
    }


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with training and validation volumes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = [summarize(train(arguments.output, arguments.data, seed), seed) for seed in arguments.seeds]
    with (arguments.output / "seeds.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    head = "| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]) + "\n"
    body = "".join("| " + " | ".join(str(cell) for cell in row.values()) + " |\n" for row in rows)
    (arguments.output / "seeds.md").write_text(head + body, encoding="utf-8")
    print(head + body)


if __name__ == "__main__":
    main()
