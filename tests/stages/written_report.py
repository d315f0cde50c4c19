"""Reports as the stage writes them, and its pages and tables read again."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from stages import report
from stages.artifacts import ReportFiles
from stages.report import ReportConfig
from tests.stages.report_artifacts import (
    Recorder,
    make_ablation,
    make_checkpoint,
    make_evaluation,
    make_picture,
    make_services,
    make_shards,
)

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every tag that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += f" {' '.join(data.split())}"

    def values(self, tag: str, name: str) -> list[str]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


def write(
    folder: Path, config: ReportConfig | None = None, **inputs: Any
) -> tuple[dict[str, str], ReportFiles, Recorder]:
    """Run the stage; give the files by extension."""
    services, recorder = make_services(folder)
    empty: dict[str, Any] = {"shards": {}, "checkpoints": {}, "ablations": {}, "evaluations": {}}
    refs = report.run(config or ReportConfig(), services, **{**empty, **inputs})
    for ref in refs.objects():
        services.store.verify(ref)
    files = {
        ref.key.rpartition(".")[2]: services.store.get_bytes(ref.key).decode()
        for ref in refs.objects()
    }
    return files, refs, recorder


def everything(folder: Path) -> dict[str, Any]:
    services, _ = make_services(folder)
    pictures = tuple(make_picture(services.store, f"{i}.png", f"frame {i}") for i in range(3))
    return {
        "shards": {"nyu": make_shards()},
        "checkpoints": {"nyu": make_checkpoint()},
        "ablations": {"nyu": make_ablation()},
        "evaluations": {"nyu": make_evaluation(pictures=pictures)},
    }


def tables_of(markdown: str) -> list[list[list[str]]]:
    """Parse a document's tables to rows of cells."""
    tables: list[list[list[str]]] = []
    is_inside = False
    for line in markdown.splitlines():
        if line.startswith("| "):
            hidden = line.replace("\\|", "\0")
            cells = [cell.strip().replace("\0", "|") for cell in hidden.split("|")[1:-1]]
            if not is_inside:
                tables.append([])
            tables[-1].append(cells)
        is_inside = line.startswith("| ")
    return tables
