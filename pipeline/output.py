"""How verbs answer: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print one JSON document, at once."""
    indent = None if one_line else 1
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def console() -> Console:
    """Return a console that wraps nothing where the output is no terminal."""
    return Console(highlight=False) if sys.stdout.isatty() else _Whole(width=100_000)


class _Whole(Console):
    """Writes whole lines, however long, for what searches and cuts them; none is padded."""

    def print(self, *args: Any, **options: Any) -> None:
        """Print as ``Console`` does."""
        with self.capture() as captured:
            super().print(*args, **{"highlight": False, **options})
        self.file.write("\n".join(line.rstrip() for line in captured.get().split("\n")))


def print_table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    styles: Iterable[str] = (),
) -> None:
    """Print a plain table below its title.

    Args:
        title: a line above it.
        headings: of the columns.
        rows: cells as text; nothing in them is markup.
        styles: one per row, where rows are coloured.
    """
    out = console()
    out.print(title, markup=False, soft_wrap=True, style="bold")
    out.print(make_table(headings, rows, styles))


def make_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], styles: Iterable[str] = ()
) -> Table:
    """Make a plain table; the arguments are those of ``print_table``."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    colours = iter(styles)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row), style=next(colours, None))
    return table
