"""Command line: how fast the inner loops are, and how much memory they take."""

import argparse
from pathlib import Path

_DESCRIPTION = """\
Measure speed and memory as ratios: the gradient of the energy and the Langevin step over the convolutions alone, over
a first version and over deepinv (if installed); training memory over the number of steps, over backpropagation through
the chain and over DIRECT's VarNet; DIRECT's update and prediction over the solvers they run. Times are medians of
turns in one process; memory is the growth of the peak in a fresh process each. Takes some minutes; leave the machine
alone. The part `throughput`, for GPUs, is measured where it is asked for: images a second in training by 100 steps, and
seconds for 100 samples of 100 steps of one slice."""

_EPILOG = """\
examples:
  direct-deepen speed --json speed.json
  direct-deepen speed --json quick.json --parts steps --size 128 --repetitions 3
  direct-deepen speed --json gpu.json --parts steps memory direct throughput --batch 4 --device cuda"""

_PARTS = ("steps", "memory", "direct", "throughput")
_USUAL = _PARTS[:3]


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    """Add the command ``speed`` to the subparsers of ``direct-deepen``, with the options that all share."""
    parser = subparsers.add_parser(
        "speed",
        help="measure speed and memory",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write all that is measured")
    parser.add_argument(
        "--parts", nargs="+", choices=_PARTS, default=_USUAL, help=f"what to measure (default: {' '.join(_USUAL)})"
    )
    parser.add_argument("--size", type=int, default=320, help="height and width (default: 320)")
    parser.add_argument("--channels", type=int, default=64, help="channels of the energy (default: 64)")
    parser.add_argument("--coils", type=int, default=12, help="coils (default: 12)")
    parser.add_argument("--batch", type=int, default=1, help="images at once (default: 1)")
    parser.add_argument("--activation", default="elu", help="activation of the energy (default: elu)")
    parser.add_argument("--repetitions", type=int, default=7, help="turns (default: 7)")
    parser.add_argument("--threads", type=int, help="threads (default: all cores)")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda:0 (default: %(default)s)")
    parser.add_argument("--configuration", type=Path, default=Path("configs/deepen_2d4x.yaml"), help="of DEEPEN")
    parser.add_argument("--baseline", type=Path, default=Path("configs/varnet_2d4x.yaml"), help="of VarNet")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure, write the file and print the table.

    Raises
    ------
    DeepenError
        If a size is out of range, or a configuration is missing.
    """
    # Imported here so that the help of other commands does not wait for torch and DIRECT.
    import json
    import os

    import torch

    from direct_deepen.errors import require
    from direct_deepen.files import write_text
    from direct_deepen.speed.figures import (
        Figures,
        measure_direct,
        measure_memory,
        measure_steps,
        measure_throughput,
        table,
    )
    from direct_deepen.speed.setting import Setting

    threads = args.threads or len(os.sched_getaffinity(0))
    require(threads >= 1, f"--threads is {threads}; allowed: >= 1")
    torch.set_num_threads(threads)
    setting = Setting(args.size, args.channels, args.coils, args.batch, args.activation, args.repetitions, args.device)
    figures = Figures()
    if "steps" in args.parts:
        measure_steps(figures, setting)
    if "memory" in args.parts:
        measure_memory(figures, setting, args.configuration, args.baseline)
    if "direct" in args.parts:
        measure_direct(figures, setting, args.configuration)
    if "throughput" in args.parts:
        measure_throughput(figures, setting, args.configuration)
    write_text(args.json, json.dumps(figures.as_dictionary(setting), indent=2) + "\n")
    print(table(figures))
    print(f"wrote {args.json}")
