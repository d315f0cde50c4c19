"""The verb ``graph``: the stages and what flows between them, for a terminal, Mermaid or a page."""

import argparse
import html
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.storage import open_store
from pipeline.config import load_config
from pipeline.console import duration_text
from pipeline.dag import Node, build_graph
from pipeline.errors import UsageMistake
from pipeline.history import DIED, standing
from pipeline.output import console, print_table
from pipeline.plan import make_plan
from pipeline.ready import check_ready
from pipeline.runs import load_run
from pipeline.selection import upstream_of

COLOURS = {
    "up to date": "#2e7d32",
    "done": "#2e7d32",
    "cached": "#2e7d32",
    "runs": "#0277bd",
    "would run": "#b26a00",
    "waits": "#757575",
    "left out": "#757575",
    "failed": "#c62828",
    "killed": "#c62828",
    DIED: "#c62828",
}
"""State -> colour of its border, dark enough for text on white."""
WIDTH_PX, HEIGHT_PX, GAP_X_PX, GAP_Y_PX = 190, 58, 70, 22


@dataclass(frozen=True)
class Look:
    """What is shown of a node: its state and a word about it."""

    state: str
    note: str


def graph_verb(options: argparse.Namespace) -> int:
    """Draw the graph, with the states of a plan or of a run."""
    config = load_config(options.preset, options.overrides)
    graph = build_graph(config)
    if options.run:
        state = load_run(open_store(config.store), options.run)
        died = standing(open_store(config.store), state) == DIED
        looks = {
            name: Look(DIED if died and s.status == "runs" else s.status, s.note)
            for name, s in state.stages.items()
            if name in graph
        }
        title = state.name
    else:
        check_ready(graph, graph)
        plan = make_plan(graph, open_store(config.store), run_id=config.run_id())
        looks = {
            name: Look("would run" if d.runs else "up to date", d.reason + _took(d.last_seconds))
            for name, d in plan.items()
        }
        title = f"Plan of {config.run_id()}"
    looks = {name: looks.get(name, Look("left out", "")) for name in graph}
    if options.json:
        rows = [
            {"stage": name, "needs": list(node.needs()), **vars(looks[name])}
            for name, node in graph.items()
        ]
        text = json.dumps({"title": title, "stages": rows}, indent=1, ensure_ascii=False) + "\n"
    elif options.format == "terminal" and not options.output:
        _print_rows(title, graph, looks)
        return 0
    else:
        make = {"terminal": draw_text, "mermaid": draw_mermaid, "html": draw_page}[options.format]
        text = make(title, graph, looks)
    if options.output:
        try:
            Path(options.output).write_text(text)
        except OSError as error:
            raise UsageMistake(
                f"--output {options.output}: cannot be written ({error.strerror}); name a file in "
                "a folder that is there"
            ) from error
        console().print(f"written: {options.output}")
    else:
        sys.stdout.write(text)
    return 0


def depths(graph: Mapping[str, Node]) -> dict[str, int]:
    """Return each node's column: one more than the farthest of what it needs."""
    found: dict[str, int] = {}
    for name, node in graph.items():
        found[name] = 1 + max((found[n] for n in node.needs()), default=-1)
    return found


def direct_needs(graph: Mapping[str, Node]) -> dict[str, tuple[str, ...]]:
    """Return what each node needs, without what it also needs by way of another input."""
    return {
        name: tuple(
            n
            for n in node.needs()
            if not any(n in upstream_of(graph, [other]) for other in node.needs() if other != n)
        )
        for name, node in graph.items()
    }


def rows_of(graph: Mapping[str, Node]) -> dict[str, int]:
    """Return each node's row: that of its first input where this is free.

    An arrow leaves its node to the right and bends before the column of its end, so the row between
    is kept free of other nodes.
    """
    columns, needs = depths(graph), direct_needs(graph)
    ends = {name: columns[name] + 1 for name in graph}
    for name, inputs in needs.items():
        for needed in inputs:
            ends[needed] = max(ends[needed], columns[name])
    rows: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()
    for name in graph:
        row = rows[needs[name][0]] if needs[name] else 0
        while any((column, row) in taken for column in range(columns[name], ends[name])):
            row += 1
        rows[name] = row
        taken |= {(column, row) for column in range(columns[name], ends[name])}
    return rows


def draw_text(title: str, graph: Mapping[str, Node], looks: Mapping[str, Look]) -> str:
    """Draw one line per node, indented by its depth, with what it needs."""
    return "\n".join([title, *("  ".join(row) for row in _rows(graph, looks))]) + "\n"


def draw_mermaid(title: str, graph: Mapping[str, Node], looks: Mapping[str, Look]) -> str:
    """Draw a flowchart as Mermaid."""
    ids = {name: f"n{index}" for index, name in enumerate(graph)}
    lines = ["---", f"title: {title}", "---", "flowchart LR"]
    for name in graph:
        lines.append(f'    {ids[name]}["{name}<br/>{looks[name].state}"]')
        lines.append(f"    style {ids[name]} stroke:{COLOURS[looks[name].state]},stroke-width:2px")
    for name, needs in direct_needs(graph).items():
        lines += [f"    {ids[needed]} --> {ids[name]}" for needed in needs]
    return "\n".join(lines) + "\n"


def draw_page(title: str, graph: Mapping[str, Node], looks: Mapping[str, Look]) -> str:
    """Draw a page that stands alone: boxes by depth, arrows, and a table below."""
    columns, rows = depths(graph), rows_of(graph)
    places = {
        name: (
            columns[name] * (WIDTH_PX + GAP_X_PX) + 2,
            rows[name] * (HEIGHT_PX + GAP_Y_PX) + 2,
        )
        for name in graph
    }
    width = max(x for x, _ in places.values()) + WIDTH_PX + 4
    height = max(y for _, y in places.values()) + HEIGHT_PX + 4
    arrows = [
        _arrow(places[needed], places[name])
        for name, needs in direct_needs(graph).items()
        for needed in needs
    ]
    boxes = [_box(name, looks[name], places[name]) for name in graph]
    table = "".join(
        f"<tr><td>{html.escape(name)}</td><td style='color:{COLOURS[look.state]}'>{look.state}</td>"
        f"<td>{html.escape(look.note)}</td></tr>"
        for name, look in looks.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #1b1b1b; background: #fff; }}
svg {{ max-width: 100%; height: auto; }}
td, th {{ text-align: left; padding: .25rem 1.5rem .25rem 0; vertical-align: top; }}
</style>
<h1>{html.escape(title)}</h1>
<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="graph of stages">
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7"
 orient="auto"><path d="M0 0 8 4 0 8z" fill="#888"/></marker></defs>
{"".join(arrows)}
{"".join(boxes)}
</svg>
<table><tr><th>stage</th><th>state</th><th>why</th></tr>{table}</table>
</html>
"""


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1 = start[0] + WIDTH_PX, start[1] + HEIGHT_PX / 2
    x2, y2 = end[0], end[1] + HEIGHT_PX / 2
    bend = x2 - GAP_X_PX + 4
    path = f"M{x1} {y1} H{bend} C{bend + 40} {y1} {x2 - 40} {y2} {x2} {y2}"
    return f'<path d="{path}" fill="none" stroke="#888" marker-end="url(#tip)"/>'


def _box(name: str, look: Look, place: tuple[int, int]) -> str:
    x, y = place
    colour = COLOURS[look.state]
    return (
        f"<g><title>{html.escape(f'{name}: {look.note}')}</title>"
        f'<rect x="{x}" y="{y}" width="{WIDTH_PX}" height="{HEIGHT_PX}" rx="8" fill="#fff" '
        f'stroke="{colour}" stroke-width="2"/>'
        f'<text x="{x + 14}" y="{y + 25}" font-weight="600">{html.escape(name)}</text>'
        f'<text x="{x + 14}" y="{y + 45}" fill="{colour}" font-size="13">{look.state}</text></g>'
    )


def _rows(graph: Mapping[str, Node], looks: Mapping[str, Look]) -> list[tuple[str, str, str, str]]:
    columns = depths(graph)
    rows = []
    for name, node in graph.items():
        needs = f"<- {', '.join(node.needs())}" if node.needs() else ""
        rows.append(("  " * columns[name] + name, looks[name].state, looks[name].note, needs))
    return rows


def _print_rows(title: str, graph: Mapping[str, Node], looks: Mapping[str, Look]) -> None:
    styles = {"#2e7d32": "green", "#0277bd": "cyan", "#b26a00": "yellow", "#c62828": "red"}
    colours = [styles.get(COLOURS[looks[name].state], "dim") for name in graph]
    print_table(title, ("stage", "state", "why", "needs"), _rows(graph, looks), colours)


def _took(seconds: float | None) -> str:
    return f" ({duration_text(seconds)} last time)" if seconds else ""
