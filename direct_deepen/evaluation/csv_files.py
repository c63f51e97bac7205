"""Tables as CSV files."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from direct_deepen.files import write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, at least one, all with the keys of the first; a reader never finds half a file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())


def read_csv[Row: "DataclassInstance"](path: Path, kind: type[Row]) -> list[Row]:
    """Read rows whose fields are numbers and text."""
    types: dict[str, type] = {"int": int, "float": float, "str": str}
    columns = {field.name: types[getattr(field.type, "__name__", str(field.type))] for field in fields(kind)}
    with path.open(encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [
            {name: convert(row[name]) for name, convert in columns.items()} for row in csv.DictReader(file)
        ]
    return [kind(**row) for row in rows]
