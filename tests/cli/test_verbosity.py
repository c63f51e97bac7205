"""What commands say: results alone unless they are asked for more; help with examples that hold."""

import argparse
import logging
import re
import shlex

import pytest
from direct.cli import predict, train
from documents import ROOT
from terminals import as_standard_error

from direct_deepen.cli.main import build_parser
from direct_deepen.cli.verbosity import log_to_standard_error
from direct_deepen.progress import progress_bar


def commands():
    """The parsers of all commands by name."""
    (subparsers,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(subparsers.choices)


def examples(epilog, program):
    """The arguments of every example that calls a program."""
    lines = epilog.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith(f"{program} ")]


# ---- Help


@pytest.mark.parametrize("name", commands())
def test_every_command_has_examples_that_parse_and_can_be_verbose(name):
    parser = commands()[name]
    found = [arguments for arguments in examples(parser.epilog, "direct-deepen") if arguments[0] == name]
    assert found
    for arguments in found:
        assert not build_parser().parse_args(arguments).verbose
        assert build_parser().parse_args([*arguments, "--verbose"]).verbose


def test_the_commands_of_direct_that_the_help_names_parse(tmp_path, monkeypatch):
    # DIRECT looks for the files while it parses.
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    checkpoint = tmp_path / "EXPERIMENT" / "deepen_2d4x" / "model_11999.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser(exit_on_error=False)
    subparsers = parser.add_subparsers()
    train.register_parser(subparsers)
    predict.register_parser(subparsers)
    found = examples(build_parser().epilog, "direct")
    assert [arguments[0] for arguments in found] == ["train", "predict"]
    for arguments in found:
        parser.parse_args(arguments)


# ---- Quiet and verbose


def test_verbose_says_on_standard_error_what_is_read_and_used_and_how_long_and_changes_no_result(study, run_command):
    command = ["posterior", str(study.prediction / "a.posterior.h5"), "--cfg", str(study.configuration)]
    command += ["--data-root", study.test.name]
    quiet, verbose = run_command(command), run_command([*command, "--verbose"])
    assert (quiet.code, quiet.errors, verbose.code) == (0, [], 0)
    assert verbose.output == quiet.output
    said = "\n".join(verbose.errors)
    for words in ("PyTorch 2", "data_root=test", "test: 2 volumes, 4 slices", "a.posterior.h5", r"all: \d+\.\d s$"):
        assert re.search(words, said), words
    assert all(re.match(r"\d\d:\d\d:\d\d INFO ", line) for line in verbose.errors)
    assert run_command(command).errors == []


@pytest.mark.parametrize(("verbose", "levels"), [(False, ["WARNING"]), (True, ["INFO", "WARNING"])])
def test_warnings_are_always_logged_and_the_logger_is_left_as_it_was(capsys, verbose, levels):
    logger = logging.getLogger("direct_deepen")
    before = (logger.level, list(logger.handlers))
    with log_to_standard_error(verbose):
        logging.getLogger("direct_deepen.engines.trained").info("read")
        logging.getLogger("direct_deepen.engines.trained").warning("odd")
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == levels
    assert (logger.level, list(logger.handlers)) == before


def test_a_line_is_written_above_a_bar(monkeypatch):
    terminal = as_standard_error(monkeypatch)
    with log_to_standard_error(False), progress_bar(name="MAP", unit="step", total=2):
        logging.getLogger("direct_deepen").warning("odd")
    # The bar is taken away, the line ends, and the bar comes again.
    assert re.search(r"MAP[^\n]*\r +\r\d\d:\d\d:\d\d WARNING odd\n\r?MAP", terminal.getvalue())
