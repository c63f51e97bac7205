"""Command line: check the installation."""

import argparse

from direct_deepen.cli.command import Command


def _run(args: argparse.Namespace) -> None:
    from direct_deepen.cli.installation import check_installation
    from direct_deepen.errors import require

    failed = []
    for finding in check_installation():
        print(f"{'ok ' if finding.passed else 'BAD'} {finding.name:11} {finding.detail}", flush=True)
        if not finding.passed:
            failed.append(finding.name)
    require(not failed, f"not in order: {', '.join(failed)}")


DOCTOR = Command(
    name="doctor",
    summary="check the installation",
    description="""\
Check the installation: versions, device, threads, whether DIRECT finds the plugin, and one slice reconstructed and
sampled with the pretrained weights of the package. Exit code 2 if something is broken.""",
    epilog="""\
example:
  direct-deepen doctor""",
    run=_run,
)
