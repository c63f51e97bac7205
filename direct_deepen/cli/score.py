"""Command line: compare predictions of DIRECT with classical reconstructions of the same data."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from direct_deepen.cli.verbosity import stage, tell_device

if TYPE_CHECKING:
    from direct_deepen.data.cases import Case

_DESCRIPTION = """\
Score reconstructions of the same undersampled data against the same references. Zero-filled, SENSE, L1-wavelet and
total variation (λ tuned on validation data) are computed here; trained models come from the output folders of
`direct predict`. Writes results.csv (a row a method), cases.csv (a row a slice), table.md, comparison.png and, with
samples, posterior.png."""

_EPILOG = """\
example:
  direct-deepen score runs/demo --cfg configs/demo_deepen_posterior.yaml \\
      --data-root runs/demo/data/test --validation-root runs/demo/data/validation \\
      --prediction varnet runs/demo/varnet_test runs/demo/varnet/model_399.pt \\
      --prediction deepen runs/demo/deepen_test runs/demo/deepen/model_449.pt"""


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    """Add the command ``score`` to the subparsers of ``direct-deepen``, with the options that all share."""
    parser = subparsers.add_parser(
        "score",
        help="compare predictions with each other and with classical methods",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="folder to write to; made if missing")
    parser.add_argument("--cfg", type=Path, required=True, help="configuration whose inference dataset is used")
    parser.add_argument("--data-root", type=Path, required=True, help="test volumes, as given to `direct predict`")
    parser.add_argument("--validation-root", type=Path, required=True, help="volumes that λ is tuned on")
    parser.add_argument(
        "--prediction",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "FOLDER", "CHECKPOINT"),
        help="a run of `direct predict`: name of its rows, output folder, weights; may be repeated",
    )
    parser.add_argument("--figure-slices", type=int, default=2, metavar="N", help="slices in the figures (default: 2)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compare what the parsed ``args`` name.

    Raises
    ------
    DeepenError
        If a file is missing, or predictions do not belong to these data.
    """
    # Imported here so that the help of other commands does not wait for torch and DIRECT.
    from direct_deepen.errors import require
    from direct_deepen.evaluation.csv_files import write_csv
    from direct_deepen.evaluation.predictions import Prediction
    from direct_deepen.evaluation.scoring import compare, markdown_table, spread_over_error, summarize, tune
    from direct_deepen.files import write_text
    from direct_deepen.pages.plots import plot_comparison, plot_posterior

    require(args.figure_slices >= 1, f"--figure-slices is {args.figure_slices}; allowed: >= 1")
    names = [name for name, _, _ in args.prediction]
    require(len(set(names)) == len(names), f"--prediction names are {', '.join(names)}; allowed: different names")
    predictions = {name: Prediction(Path(folder), Path(weights)) for name, folder, weights in args.prediction}
    tell_device()
    test, validation = (_read(args, root) for root in (args.data_root, args.validation_root))
    with stage("tuning of the classical methods"):
        regularizations = tune(validation)
    with stage("comparison"):
        rows, pictures = compare(test, predictions, regularizations=regularizations)
    summaries = summarize(rows)

    write_csv(args.output / "results.csv", [asdict(summary) for summary in summaries])
    write_csv(args.output / "cases.csv", [asdict(row) for row in rows])
    table = markdown_table(summaries)
    tuned = ", ".join(f"{method} with λ = {value:.3g}" for method, value in regularizations.items())
    note = f"\n{len(test)} slices; ± is over slices; {tuned}, tuned on validation data.\n"
    for name in pictures[0].std:
        ratio = spread_over_error(pictures, name)
        told = f"Mean standard deviation over mean absolute error of {name}_mmse: {ratio:.2f}"
        note += f"{told} (1.25 for Gaussian errors of just that standard deviation).\n"
    write_text(args.output / "table.md", table + note)
    # Slices of different volumes, spread over the set.
    step = max(1, len(pictures) // args.figure_slices)
    shown = pictures[step // 2 :: step][: args.figure_slices]
    with stage("figures"):
        plot_comparison(shown, args.output / "comparison.png")
        if any(picture.std for picture in shown):
            plot_posterior(shown, args.output / "posterior.png")
    print(f"{table}{note}\nwrote {args.output}")


def _read(args: argparse.Namespace, root: Path) -> "list[Case]":
    from direct_deepen.data.cases import cases, coil_maps_of, inference_dataset
    from direct_deepen.progress import progress_bar

    dataset = inference_dataset(args.cfg, root)
    found = cases(dataset, coil_maps=coil_maps_of(args.cfg), cache=args.output / "coil_maps")
    with stage(f"reading {root}"):
        return list(progress_bar(found, name=f"read {root}", unit="slice", total=len(dataset)))
