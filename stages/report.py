"""ShardSets + Checkpoints + AblationTables + EvalReports -> ReportFiles: a page one can trust.

The HTML page stands alone: style, curves and pictures are in it, and it loads nothing. Equal
artifacts give equal bytes, so no date is in it.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from cluster.services import Services
from stages.artifacts import (
    AblationTable,
    Artifact,
    Checkpoint,
    EvalReport,
    Picture,
    ReportFiles,
    ShardSet,
)
from stages.reporting import studies
from stages.reporting.markdown import render_markdown
from stages.reporting.page import Inputs, make_page
from stages.settings import Settings

_IMAGE_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


class ReportConfig(Settings):
    """What the report is called, and how much it shows."""

    title: str = Field("Monocular depth estimation", description="heading of the report")
    num_pictures: int = Field(8, ge=0, description="pictures of each data set")
    warn_below_ratio: float = Field(
        1.1, ge=1, description="warn where delta1 is below this many times the best constant's"
    )


def run(
    config: ReportConfig,
    services: Services,
    shards: dict[str, ShardSet],
    checkpoints: dict[str, Checkpoint],
    ablations: dict[str, AblationTable],
    evaluations: dict[str, EvalReport],
) -> ReportFiles:
    """Write the report as HTML, Markdown and JSON to the store and to MLflow."""
    inputs = Inputs(shards, checkpoints, ablations, evaluations)
    shown = {name: e.pictures[: config.num_pictures] for name, e in evaluations.items()}
    total, done = sum(len(pictures) for pictures in shown.values()) + 3, 0
    services.progress(0, total, "parts", "reading pictures")
    pictures: dict[str, list[dict[str, Any]]] = {}
    for name, chosen in shown.items():
        pictures[name] = []
        for picture in chosen:
            pictures[name].append(_embedded(services, picture))
            done += 1
            services.progress(done, total, "parts", f"pictures of {name}")
    page = make_page(config.title, config.warn_below_ratio, services.key, inputs)
    forms = {
        "report.html": render_html(page, pictures),
        "report.md": render_markdown(page),
        "report.json": render_json(page, inputs),
    }
    refs = {}
    for name, text in forms.items():
        data = text.encode()
        refs[name] = services.store.put_bytes(f"reports/{services.key}/{name}", data)
        services.log_bytes(name, data)
        done += 1
        services.progress(done, total, "parts", name)
    return ReportFiles(
        html=refs["report.html"], markdown=refs["report.md"], data=refs["report.json"]
    )


def render_html(page: Mapping[str, Any], pictures: Mapping[str, Sequence[Any]]) -> str:
    """Fill the template; everything that is not markup of ours is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(Path(__file__).with_suffix(".html.j2").read_text())
    arrows = {"higher": "↑", "lower": "↓"}
    return template.render(page=page, pictures=pictures, arrows=arrows) + "\n"


def render_json(page: Mapping[str, Any], inputs: Inputs) -> str:
    """Write the artifacts whole, and what the report derives from them.

    Values that are not finite are the strings ``NaN``, ``Infinity`` and ``-Infinity``.
    """
    compared = {
        name: {
            study: {m.key: vars(studies.compare(table, study, m.key)) for m in studies.COMPARED}
            for study in table.studies()
        }
        for name, table in inputs.ablations.items()
    }
    data = {
        "title": page["title"],
        "run_id": page["run_id"],
        "verdicts": {name: vars(verdict) for name, verdict in page["verdicts"].items()},
        "studies": compared,
        **{kind: _dumped(artifacts) for kind, artifacts in vars(inputs).items()},
    }
    return json.dumps(_strict(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _embedded(services: Services, picture: Picture) -> dict[str, Any]:
    """Read a picture from the store as a data URI."""
    data = services.store.get_bytes(picture.image.key)
    kind = next((k for magic, k in _IMAGE_TYPES.items() if data.startswith(magic)), None)
    if kind is None:
        raise ValueError(
            f"{picture.image.key} begins with {data[:4]!r}: a page shows PNG, JPEG or WebP; "
            "run evaluate again"
        )
    size_px = None
    if kind == "image/png":
        size_px = tuple(int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    uri = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"uri": uri, "caption": picture.caption, "size_px": size_px}


def _dumped(artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    return {name: artifact.model_dump(mode="json") for name, artifact in artifacts.items()}


def _strict(value: Any) -> Any:
    """Replace what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
