"""Do intervals of regions hold? `direct-deepen calibrate` on several sets of data, masks and seeds.

    python -m projects.calibration.run runs/calibration --set NAME CONFIGURATION VALIDATION TEST
    python -m projects.calibration.report runs/calibration projects/calibration/results

A set is a configuration, whose weights are those that come with the package, and two folders of volumes. Its masks are
those of `configs/masks`. Writes OUTPUT/<set>/<mask>/seed_<n>, each the output of one calibration; what is there is not
computed again, and neither are samples of one that was cut short. `--change KEY=VALUE` changes the configuration.
"""

import argparse
from pathlib import Path

from omegaconf import OmegaConf

from direct_deepen.cli.main import main as command
from direct_deepen.errors import require
from direct_deepen.machine import available_cores, use_cores

MASKS = Path("configs/masks")


def write_configuration(source: Path, mask: Path, changes: list[str], path: Path) -> None:
    """Write a configuration with the mask of a file in its inference dataset, and other changes."""
    content = OmegaConf.load(source)
    masking = OmegaConf.load(mask).transforms.masking
    dataset = OmegaConf.merge(content.inference.dataset, {"transforms": {"masking": None}})
    dataset.transforms.masking = masking
    content.inference.dataset = dataset
    OmegaConf.save(OmegaConf.merge(content, OmegaConf.from_dotlist(changes)), path)


def main() -> None:
    """Calibrate every set with every mask and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--set", nargs=4, action="append", required=True, metavar=("NAME", "CONFIGURATION", "VALIDATION", "TEST")
    )
    parser.add_argument("--masks", nargs="+", default=["2d4x", "2d6x", "1d4x"], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="number of them, from 0")
    parser.add_argument("--slices", type=int, help="at most so many of either folder")
    parser.add_argument("--change", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    use_cores(set(available_cores()))
    for seed in range(args.seeds):
        for name, configuration, validation, test in args.set:
            for mask in args.masks:
                path = MASKS / f"{mask}.yaml"
                require(path.is_file(), f"{path}: no such file; allowed: masks of {MASKS}")
                folder = args.output / name / mask / f"seed_{seed}"
                if (folder / "calibration.png").is_file():
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                write_configuration(Path(configuration), path, args.change, folder / "configuration.yaml")
                words = ["--cfg", folder / "configuration.yaml", "--validation-root", validation, "--data-root", test]
                words += ["--seed", seed] + ([] if args.slices is None else ["--slices", args.slices])
                command(["calibrate", str(folder), *map(str, words)])


if __name__ == "__main__":
    main()
