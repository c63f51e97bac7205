"""Compare methods on problems.

A study, one YAML file, names the data, the problems (configurations whose inference dataset has the mask), and the
methods: classical ones; any model that DIRECT trains, by its configuration and checkpoint; and output folders of
`direct predict`, which give the rows NAME_map and NAME_mmse where there are posterior files of both. All get the same
data, masks, noise and scale; what a method tunes, it tunes on the validation data. A problem with `inference.crop:
header` compares what that leaves of the images. Every run, a method on a problem, has a process of its own. Runs that
are done are not repeated, and one that fails does not lose the others.

Writes results.csv (a row a slice, of methods that sample with spread, coverage and cost of a sample), table.md,
versions.json, and for every problem comparison.png and, with samples, posterior.png (MAP and mean of predictions) or
uncertainty.png, with the name of the problem in front where there are several; and runs/ with images and the output of
every run.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from direct_deepen.cli.verbosity import stage
from direct_deepen.errors import require
from direct_deepen.files import require_apart

EXAMPLES = """\
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
    posterior:
      predictions: "runs/{problem}/deepen_test"
      checkpoint: "runs/{problem}/deepen/model_1199.pt"

example:
  direct-deepen benchmark runs/benchmark --study study.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add study and output."""
    parser.add_argument("output", metavar="OUT", type=Path, help="folder to write to; made if missing")
    parser.add_argument("--study", type=Path, required=True, help="the YAML file that names data, problems and methods")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, sharing the cores (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda:0 (default: %(default)s)")
    parser.add_argument("--figure-slices", type=int, default=2, metavar="N", help="slices in a figure (default: 2)")


def run(args: argparse.Namespace) -> None:
    """Run a study; if runs fail, all others are done before this ends in an error."""
    from direct_deepen.evaluation.benchmark import gather, pictures, run_study, write_results
    from direct_deepen.evaluation.study import load_study
    from direct_deepen.pages.plots import plot_comparison, plot_posterior, plot_uncertainty

    require(args.figure_slices >= 1, f"--figure-slices is {args.figure_slices}; allowed: >= 1")
    study = load_study(args.study)
    require_apart([args.output], [study.test, study.validation])
    # Here already: without pandas it ends, and not after hours.
    gather(study, args.output)
    with stage("runs"):
        failures = run_study(study, args.output, jobs=args.jobs, device=args.device)
    failed = f"{len(failures)} of {len(study.runs())} runs failed: {'; '.join(failures)}"
    require(len(gather(study, args.output)) > 0, failed)
    print(write_results(study, args.output))
    with stage("figures"):
        for problem in study.problems:
            start = f"{problem}_" if len(study.problems) > 1 else ""
            shown = pictures(study, args.output, problem, count=args.figure_slices)
            if shown:
                plot_comparison(shown, args.output / f"{start}comparison.png")
            # MAP and mean of predictions have names of their own; any other mean has the name of its method.
            for name, plot, own in (("posterior", plot_posterior, False), ("uncertainty", plot_uncertainty, True)):
                drawn = [replace(p, std={key: p.std[key] for key in p.std if (key in p.images) == own}) for p in shown]
                if any(picture.std for picture in drawn):
                    plot(drawn, args.output / f"{start}{name}.png")
    print(f"wrote {args.output}")
    require(not failures, failed)
