"""The report as Markdown: the page's figures and words, without curves and pictures."""

from collections.abc import Mapping
from typing import Any

from stages.reporting.tables import Table


def render_markdown(page: Mapping[str, Any]) -> str:
    """Write the same figures as Markdown, without curves and pictures."""
    lines = [f"# {plain(page['title'])}", f"Pipeline run `{page['run_id']}`. {page['summary']}"]
    verdicts = page["verdicts"].items()
    lines += [f"* **{plain(n)}** {'(warning) ' * v.is_warning}{v.text}." for n, v in verdicts]
    if page["headline"]:
        lines.append(table_lines(page["headline"]))
    for dataset in page["datasets"]:
        lines.append(f"## {plain(dataset['name'])}")
        lines += [f"* {plain(note)}" for note in dataset["notes"]]
        if dataset["metrics"]:
            lines += [table_lines(dataset["metrics"]), plain(dataset["protocol"])]
        if dataset["ranges"]:
            lines.append(table_lines(dataset["ranges"]))
        lines += [f"* {label}: {plain(value)}" for label, value in dataset["facts"]]
        if dataset["recipe"]:
            lines += ["### Recipe", table_lines(dataset["recipe"])]
    if page["ablations"]:
        lines.append("## Ablations")
    for ablation in page["ablations"]:
        lines += [f"### {plain(ablation['name'])}", table_lines(ablation["table"])]
        lines += [plain(ablation["comparable"])]
    if page["data"]:
        lines += ["## Data", table_lines(page["data"]), *map(plain, page["depths"])]
    for skipped in page["skipped"]:
        lines.append(f"### Frames of {plain(skipped['name'])} left out: {skipped['count']}")
        lines.append(table_lines(skipped["table"]))
    text = ""
    for previous, line in zip(["", *lines], lines, strict=False):
        is_list = line.startswith("* ") and previous.startswith("* ")
        text += ("\n" if is_list else "\n\n") + line
    return text.strip() + "\n"


def table_lines(table: Table) -> str:
    """Write a table; a cell that spans columns leaves the others empty."""
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    heads = [
        f"{plain(c.title)}{arrows[c.better]}" + (f" ({plain(c.note)})" if c.note else "")
        for c in table.columns
    ]
    lines = [heads, [":--" if not c.is_number else "--:" for c in table.columns]]
    for row in table.rows:
        cells = []
        for cell in row:
            text = f"{plain(cell.text)}{arrows[cell.better]}"
            cells += [text + (f" ({plain(cell.note)})" if cell.note else "")]
            cells += [""] * (cell.span - 1)
        lines.append(cells)
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{plain(table.caption)}\n\n{text}" if table.caption else text


def plain(text: str) -> str:
    """Escape what Markdown, or HTML in it, would read as markup."""
    for mark in "\\`*[]|":
        text = text.replace(mark, f"\\{mark}")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())
