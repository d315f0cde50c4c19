"""The configuration of a run: a preset, then overrides; every mistake reported at once."""

import hashlib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cluster.session import SessionConfig
from cluster.storage import open_store
from cluster.tracking import TrackingConfig
from pipeline.config_mistakes import idle_limits, nearest, wrong_branches, wrong_values
from pipeline.errors import ConfigMistakes, Mistake
from pipeline.retry import ExecutionConfig
from stages.ablate import AblateConfig
from stages.evaluate import EvaluateConfig
from stages.register import RegisterConfig
from stages.report import ReportConfig
from stages.settings import anchored
from stages.shard import ShardConfig
from stages.train import TrainConfig

PRESETS = Path(__file__).parent / "presets"


class PipelineConfig(BaseModel):
    """One field per stage; a table per data set where the stage runs for each.

    A data set's branch has the stages that it has a table for: ``[shard.nyu]``, ``[train.nyu]``,
    ``[ablate.nyu]``, ``[evaluate.nyu]``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]+$", description="the run's name, first part of its id"
    )
    store: str = Field("", description="object store: folder or s3://; empty = outputs/store")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="MLflow")
    session: SessionConfig = Field(default_factory=SessionConfig, description="Ray")
    execution: ExecutionConfig = Field(
        default_factory=ExecutionConfig, description="retries and time limits"
    )
    shard: dict[str, ShardConfig] = Field(min_length=1, description="raw data sets")
    train: dict[str, TrainConfig] = Field(default_factory=dict, description="main training")
    ablate: dict[str, AblateConfig] = Field(default_factory=dict, description="ablations")
    evaluate: dict[str, EvaluateConfig] = Field(default_factory=dict, description="test figures")
    report: ReportConfig = Field(default_factory=ReportConfig, description="the report")
    register_: RegisterConfig = Field(
        default_factory=RegisterConfig, alias="register", description="MLflow's model registry"
    )

    @field_validator("store")
    @classmethod
    def _check_store(cls, url: str) -> str:
        open_store(url)
        return anchored(url)

    def run_id(self) -> str:
        """Name the run: equal configurations are the same run, today and tomorrow."""
        data = self.model_dump_json(exclude={"session", "execution"})
        return f"{self.name}-{hashlib.sha256(data.encode()).hexdigest()[:8]}"


def outputs_root() -> Path:
    """Return the folder of everything that a run leaves on this machine.

    ``$DEPTH_OUTPUTS``, or ``outputs`` in the current folder. A Ray job's current folder is a
    copy that Ray deletes, so there it is ``depth-outputs`` in the home folder.
    """
    if chosen := os.environ.get("DEPTH_OUTPUTS"):
        return Path(chosen).expanduser().absolute()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return Path.home() / "depth-outputs"
    return Path("outputs").absolute()


def preset_names() -> list[str]:
    """Return the names of the presets that come with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_config(preset: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Build the configuration of a run.

    Args:
        preset: a preset's name, or the path of a TOML file.
        overrides: ``KEY=VALUE`` with a dotted key; the value as in TOML, or plain text.

    Raises:
        ConfigMistakes: with every mistake in preset and overrides.
    """
    data = read_preset(preset)
    mistakes = [m for text in overrides if (m := _apply(data, text))]
    _inherit_recipe(data)
    _fill_places(data)
    return _validated(data, mistakes)


def parse_config(data: Mapping[str, Any], overrides: Sequence[str] = ()) -> PipelineConfig:
    """Build the configuration again that a run has kept.

    Args:
        data: what ``PipelineConfig.model_dump`` gave.
        overrides: as in ``load_config``.

    Raises:
        ConfigMistakes: another version of the project wrote it, or an override is wrong.
    """
    copy = deepcopy(dict(data))
    mistakes = [m for text in overrides if (m := _apply(copy, text))]
    return _validated(copy, mistakes)


def _validated(data: dict[str, Any], mistakes: list[Mistake]) -> PipelineConfig:
    config = None
    try:
        config = PipelineConfig.model_validate(data)
    except ValidationError as error:
        mistakes += wrong_values(error, PipelineConfig)
    mistakes += wrong_branches(data)
    mistakes += [] if config is None else idle_limits(config)
    inherited = {m.key.replace("train.", "ablate.", 1) for m in mistakes if m.key[:6] == "train."}
    mistakes = [m for m in mistakes if m.key not in inherited]
    if mistakes or config is None:
        raise ConfigMistakes(tuple(dict.fromkeys(mistakes)))
    return config


def read_preset(preset: str) -> dict[str, Any]:
    """Read a preset's file as it stands.

    Raises:
        ConfigMistakes: there is none, or it is not TOML.
    """
    path = Path(preset) if preset.endswith(".toml") else PRESETS / f"{preset}.toml"
    if not path.is_file():
        known = preset_names()
        reason = "no such preset" if path.parent == PRESETS else "no such file"
        hint = nearest(preset, known) or f"presets: {', '.join(known)}; or a path ending in .toml"
        raise ConfigMistakes((Mistake("preset", preset, reason, hint),))
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigMistakes((Mistake("preset", str(path), f"not TOML: {error}"),)) from error
    return {"name": path.stem, **data}


def _apply(data: dict[str, Any], text: str) -> Mistake | None:
    """Set one override; return what is wrong with its form."""
    key, sign, value = text.partition("=")
    if not sign or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key):
        return Mistake(text, "", "an override has the form KEY=VALUE, KEY with dots")
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *path, last = key.split(".")
    table = data
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            return Mistake(key, value, f"{part} is a value, not a table: nothing can be below it")
    table[last] = parsed
    return None


def _inherit_recipe(data: dict[str, Any]) -> None:
    """Let each ablation's baseline start from its data set's training recipe."""
    ablations, trainings = data.get("ablate"), data.get("train")
    if not isinstance(ablations, dict) or not isinstance(trainings, dict):
        return
    for name, table in ablations.items():
        base = trainings.get(name)
        if isinstance(table, dict) and isinstance(base, dict):
            table["recipe"] = _merged(base.get("recipe", {}), table.get("recipe", {}))


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {key: _merged(base.get(key, {}), over[key]) if key in over else base[key]
            for key in {**base, **over}}  # fmt: skip


def _fill_places(data: dict[str, Any]) -> None:
    """Say where outputs go, where the user did not; ``outputs:`` in a root is that folder."""
    root = outputs_root()
    if not data.get("store"):
        data["store"] = str(root / "store")
    tracking = data.setdefault("tracking", {})
    if isinstance(tracking, dict) and not tracking.get("uri"):
        tracking["uri"] = f"sqlite:///{root / 'mlflow.db'}"
    register = data.setdefault("register", {})
    if isinstance(register, dict) and isinstance(tracking, dict):
        register.setdefault("registry_uri", tracking["uri"])
    tables = data.get("shard")
    for table in tables.values() if isinstance(tables, dict) else ():
        if isinstance(table, dict) and str(table.get("root", "")).startswith("outputs:"):
            table["root"] = str(root / table["root"].removeprefix("outputs:"))
