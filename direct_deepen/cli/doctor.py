"""Command line: look whether the installation is in order."""

import argparse

_DESCRIPTION = """\
Look at the installation: versions, device, threads, whether DIRECT finds the plugin, and one slice reconstructed and
sampled with the weights that come along. Ends with exit code 2 if something is broken."""

_EPILOG = """\
example:
  direct-deepen doctor"""


def add_parser(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
) -> None:
    """Add the command ``doctor`` to the subparsers of ``direct-deepen``, with the options that all share."""
    parser = subparsers.add_parser(
        "doctor",
        help="look whether the installation is in order",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print what is found, as it is found.

    Raises
    ------
    DeepenError
        If a check failed.
    """
    # Imported here so that the help of other commands does not wait for torch and DIRECT.
    from direct_deepen.cli.installation import examine
    from direct_deepen.errors import require

    failed = []
    for finding in examine():
        print(f"{'ok ' if finding.passed else 'BAD'} {finding.name:11} {finding.detail}", flush=True)
        if not finding.passed:
            failed.append(finding.name)
    require(not failed, f"not in order: {', '.join(failed)}")
