"""Measure the calibration of posteriors, and fit what corrects it.

Sample the posteriors of validation and test volumes with references, and compare. On the validation data factors of
the samples about their mean are fitted: one for every ring of k-space, with which samples have the power of the error,
then one for all, with which 90 % intervals hold 90 % of the pixels inside the object. On the test data, before and
after: coverage of 50, 90 and 95 % intervals for pixels and for means of 2×2, 4×4 and 8×8 blocks, power of the error by
ring, calibration curve, correlation of standard deviation and error beside the highest that such deviations can have,
sparsification curve. Against the reference as it is, and against the reference with the data noise that samples carry
by construction. The object is where the reference is above 5 % of its largest value. With nine volumes and more there
is a guarantee besides.

The factors go to model_<iteration>.calibration.yaml beside the checkpoint, where `direct predict` finds it: posteriors
of these weights are then rescaled. Rename or remove the file to predict without. Without --checkpoint the weights that
come with the package are calibrated, and the file goes to OUT.

Writes table.md, cases.csv (a row a slice), calibration_curve.csv, sparsification.csv, rings.csv, calibration.png, and
samples/: a run that is cut short goes on where it was.
"""

import argparse
from functools import partial
from pathlib import Path

from direct_deepen.cli.verbosity import stage
from direct_deepen.errors import require
from direct_deepen.files import require_apart, write_text

EXAMPLES = """\
example:
  direct-deepen calibrate runs/calibration --cfg configs/demo_deepen_posterior.yaml \\
      --checkpoint runs/demo_deepen/model_449.pt --data-root runs/data/test --validation-root runs/data/validation"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add model, data and output."""
    parser.add_argument("output", metavar="OUT", type=Path, help="folder to write to; made if missing")
    parser.add_argument("--cfg", type=Path, required=True, help="configuration: model, sampling and inference dataset")
    parser.add_argument("--checkpoint", type=Path, help="weights (default: those that come with the package)")
    parser.add_argument("--data-root", type=Path, required=True, help="test volumes")
    parser.add_argument("--validation-root", type=Path, required=True, help="volumes that factors are fitted on")
    parser.add_argument("--slices", type=int, metavar="N", help="at most N slices of either, spread (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda:0 (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Fit factors on validation data, judge them on test data, and write what came out."""
    from direct_deepen.data.cases import inference_dataset
    from direct_deepen.engines.calibration_file import calibration_path, write_calibration
    from direct_deepen.engines.trained import load_prior, load_system, pretrained_for
    from direct_deepen.evaluation import calibration_study
    from direct_deepen.evaluation.tables import write_csv
    from direct_deepen.pages.calibration_plots import plot_calibration

    require(args.slices is None or args.slices >= 1, f"--slices is {args.slices}; allowed: >= 1")
    samples = args.output / "samples"
    require_apart([samples / "validation", samples / "test"], [args.validation_root, args.data_root])
    system = load_system(args.cfg)
    inference = calibration_study.require_sampler(system.inference)
    prior = pretrained_for(args.cfg) if args.checkpoint is None else load_prior(args.checkpoint, args.cfg)
    prior = prior.to(args.device)
    validation, test = (inference_dataset(args.cfg, root) for root in (args.validation_root, args.data_root))

    sampled = partial(
        calibration_study.sampled_slices, prior=prior, inference=inference, coil_maps=system.settings.coil_maps,
        seed=args.seed, limit=args.slices, device=args.device,
    )  # fmt: skip

    with stage("samples of validation data"):
        sampled_validation = list(sampled(validation, folder=samples / "validation", label="validation"))
    with stage("fit"):
        calibration = calibration_study.fit(sampled_validation, prior, inference, seed=args.seed)
    noise_std = system.objective.data_noise_std
    with stage("samples of test data, and what they are worth"):
        assessments, rings, missed = [], [], {}
        for item in sampled(test, folder=samples / "test", label="test"):
            assessments += calibration_study.assess(item, calibration, data_noise_std=noise_std, seed=args.seed)
            rings += calibration_study.assess_rings(item, calibration)
            if calibration.guaranteed_scale is not None:
                missed[item.case] = calibration_study.missed_beyond(item, calibration.guaranteed_scale)
    write_csv(args.output / "cases.csv", calibration_study.case_rows(assessments))
    write_csv(args.output / "calibration_curve.csv", calibration_study.curve_rows(assessments))
    write_csv(args.output / "sparsification.csv", calibration_study.sparsification_rows(assessments))
    write_csv(args.output / "rings.csv", calibration_study.ring_rows(rings))
    table = calibration_study.calibration_report(assessments, rings, calibration, missed)
    write_text(args.output / "table.md", table)
    path = args.output / "pretrained.calibration.yaml" if args.checkpoint is None else calibration_path(args.checkpoint)
    write_calibration(path, calibration)
    # Last of all: hours of sampling are not to be lost to a picture.
    plot_calibration(assessments, rings, args.output / "calibration.png")
    print(f"{table}\nwrote {args.output}\nwrote {path}")
