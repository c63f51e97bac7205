"""One page about one or several runs: curves of trainings, tables of results, pictures."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from direct_deepen.errors import require
from direct_deepen.pages.html_page import Html, details, gallery, page, paragraph, picture, section, table
from direct_deepen.pages.training_curves import LOG, plot_curves, read_curves, shown_curves

_TABLE = "table.md"
_CONFIGURATION = "config.yaml"


def build_report(runs: Sequence[Path]) -> Html:
    """Return the page about folders of `direct train`, `direct-deepen score`, `benchmark` and `calibrate`.

    Trainings come first, all in the same figures; then the table and the pictures of every folder that has any.

    Raises
    ------
    DeepenError
        If a folder is missing, holds nothing to report or has the name of another, or a log is damaged.
    """
    names = [run.resolve().name for run in runs]
    require(len(set(names)) == len(names), f"runs are {', '.join(names)}; allowed: folders of different names")
    for run in runs:
        require(run.is_dir(), f"{run}: no such folder")
        found = any((run / name).is_file() for name in (LOG, _TABLE)) or any(run.glob("*.png"))
        require(found, f"{run}: neither {LOG} of a training, nor {_TABLE}, nor pictures")
    by_name = dict(zip(names, runs, strict=True))
    trainings = {name: read_curves(run) for name, run in by_name.items() if (run / LOG).is_file()}
    curves = [picture(plot_curves(found), title) for title, found in shown_curves(trainings)]
    parts = [section("Training", gallery(*curves))] if curves else []
    parts += [section(name, *_results(run)) for name, run in by_name.items()]
    return page("direct-deepen", *parts, subtitle=", ".join(names))


def _results(run: Path) -> Iterator[Html]:
    if (run / _TABLE).is_file():
        yield from from_markdown(run / _TABLE)
    for path in sorted(run.glob("*.png")):
        yield picture(path.read_bytes(), path.stem)
    if (run / _CONFIGURATION).is_file():
        yield details("configuration", (run / _CONFIGURATION).read_text(encoding="utf-8"))


def from_markdown(path: Path) -> Iterator[Html]:
    """Yield the tables and paragraphs of a file of tables, as this package writes them.

    Raises
    ------
    DeepenError
        If the rows of a table have different numbers of cells.
    """
    text = path.read_text(encoding="utf-8")
    for is_table, lines in groupby(text.splitlines(), key=lambda line: line.startswith("|")):
        if not is_table:
            yield from (paragraph(line.lstrip("# ")) for line in lines if line.strip())
            continue
        # The second line is the rule under the head. Only one bar ends a line: an empty last cell has one too.
        rows = [[cell.strip() for cell in line.strip()[1:].removesuffix("|").split("|")] for line in lines]
        head, body = rows[0], rows[2:]
        fits = len(body) > 0 and all(len(row) == len(head) for row in body)
        require(fits, f"{path}: no table of equally long rows under {rows[0]}; allowed: what direct-deepen writes")
        yield table([dict(zip(head, row, strict=True)) for row in body])
