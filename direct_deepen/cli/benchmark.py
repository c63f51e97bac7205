"""Command line: every method on every problem, on one forward model."""

import argparse
from pathlib import Path

from direct_deepen.cli.verbosity import stage

_DESCRIPTION = """\
Compare methods on problems. A study, one YAML file, names the data, the problems (configurations whose inference
dataset has the mask), and the methods: classical ones, and any model that DIRECT trains, each with its configuration
and checkpoint. All get the same data, masks, noise and scale; what a method tunes, it tunes on the validation data.
Every cell runs in a process of its own. Cells that are done are not repeated, and one that fails does not lose the
others. Writes results.csv (a row a slice), table.md, versions.json, a figure for every problem, and cells/ with
images and the output of every cell; and of methods that sample, posterior.csv (spread, coverage, cost of a sample) and
another figure."""

_EPILOG = """\
example of a study:
  test: data/test
  validation: data/validation
  reference: deepen
  seed: 0
  problems:
    2d4x: configs/phantom_deepen.yaml
  methods:
    sense: {classical: sense}
    deepen:
      configuration: configs/phantom_deepen.yaml
      checkpoint: "runs/{problem}/deepen/model_1199.pt"
      tune: {key: inference.prior_weight, values: [0.5, 0.7, 1.0, 1.4, 2.0]}
    varnet:
      configuration: configs/demo_varnet.yaml
      checkpoint: "runs/{problem}/varnet/model_399.pt"

example:
  direct-deepen benchmark runs/benchmark --study study.yaml"""


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    """Add the command ``benchmark`` to the subparsers of ``direct-deepen``, with the options that all share."""
    parser = subparsers.add_parser(
        "benchmark",
        help="compare methods on problems",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="folder to write to; made if missing")
    parser.add_argument("--study", type=Path, required=True, help="the YAML file that names data, problems and methods")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="cells at once, sharing the cores (default: 1)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda:0 (default: %(default)s)")
    parser.add_argument("--figure-slices", type=int, default=2, metavar="N", help="slices in a figure (default: 2)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the study that the parsed ``args`` name.

    Raises
    ------
    DeepenError
        If the study is bad, or a cell failed; all others are done then.
    """
    # Imported here so that the help of other commands does not wait for torch and DIRECT.
    from direct_deepen.errors import require
    from direct_deepen.evaluation.grid import gather, pictures, run_grid, write_results
    from direct_deepen.evaluation.study import load_study
    from direct_deepen.pages.plots import plot_comparison, plot_uncertainty
    from direct_deepen.progress import progress_bar

    require(args.figure_slices >= 1, f"--figure-slices is {args.figure_slices}; allowed: >= 1")
    study = load_study(args.study)
    with stage("cells"):
        failures = run_grid(study, args.output, jobs=args.jobs, device=args.device)
    told = f"{len(failures)} of {len(study.cells())} cells failed: {'; '.join(failures)}"
    require(bool(gather(study, args.output)), told)
    print(write_results(study, args.output))
    with stage("figures"):
        for problem in progress_bar(study.problems, name="figures", unit="problem"):
            shown = pictures(study, args.output, problem, count=args.figure_slices)
            if shown:
                plot_comparison(shown, args.output / f"{problem}.png")
            if any(picture.std for picture in shown):
                plot_uncertainty(shown, args.output / f"{problem}_posterior.png")
    print(f"wrote {args.output}")
    require(not failures, told)
