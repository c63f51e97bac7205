"""What a command of ``direct-deepen`` is: help, arguments, and a function."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command.

    Modules of commands import what is slow to load inside ``run``, so that help appears at once.

    Attributes
    ----------
    name
        What is typed after ``direct-deepen``.
    summary
        One line for the list of commands.
    description
        Text of the command's own help.
    epilog
        What follows the options there: examples.
    run
        Executes the parsed arguments; raises ``DeepenError`` for bad input.
    add_arguments
        Adds the command's own arguments to its parser.
    """

    name: str
    summary: str
    description: str
    epilog: str
    run: Callable[[argparse.Namespace], None]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None

    def add_to(
        self, subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", shared: argparse.ArgumentParser
    ) -> None:
        """Add the command to the subparsers of ``direct-deepen``, with the options that all commands share."""
        parser = subparsers.add_parser(
            self.name,
            help=self.summary,
            description=self.description,
            epilog=self.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[shared],
        )
        self.add_arguments(parser)
        parser.set_defaults(run=self.run)
