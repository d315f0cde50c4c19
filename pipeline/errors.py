"""What the pipeline itself refuses or fails with, as a tree; each with its exit code.

::

    PipelineError
    ├── ConfigMistakes   2  every mistake of the configuration, at once
    ├── UsageMistake     2  a command that cannot be meant: an unknown stage, an unknown run
    ├── GraphError       2  the table of stages does not make a graph
    ├── NotReady         3  what the settings name is not there: data, weights
    ├── RunHeld          4  another driver works on the same run
    └── StageFailed      1  a stage ended with an error; what was finished before it stays
        ├── StageTimeout 6  a stage took longer than its limit
        └── CodeEdited   7  a stage's code was edited while the run began

``OUTSIDE_WORLD`` (5) is for a store, an MLflow or a Ray that cannot be used, ``cluster.errors``.
``exit_code_of`` knows the code of every error, and a failed stage has that of what it failed with.
"""

from dataclasses import dataclass
from typing import Any

from cluster.errors import ClusterError, without_credentials
from densedepth.errors import CorruptShardError, DataError, WeightsError

OUTSIDE_WORLD = 5
"""Exit code where the store, MLflow or Ray cannot be used."""
FINDINGS = 1
"""Exit code of ``verify`` and ``doctor`` when something is wrong."""


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with the configuration.

    Attributes:
        key: the dotted key.
        value: what was given, as text.
        reason: what is wrong with it.
        hint: the nearest valid name, or what to do; may be empty.
    """

    key: str
    value: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        value = f" = {without_credentials(self.value)}" if self.value else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.key}{value}: {self.reason}{hint}"


class PipelineError(Exception):
    """Base of the pipeline's own errors."""

    exit_code = 1


class ConfigMistakes(PipelineError, ValueError):
    """Every mistake of the configuration, at once."""

    exit_code = 2

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        count = f"{len(self.mistakes)} mistake{'s' if len(self.mistakes) > 1 else ''}"
        return "\n".join([f"{count} in the configuration:", *(f"  {m}" for m in self.mistakes)])


class NotReady(PipelineError):
    """What the settings name is not there."""

    exit_code = 3

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "\n".join(self.reasons)


class UsageMistake(PipelineError, ValueError):
    """A command that cannot be meant."""

    exit_code = 2


class RunHeld(PipelineError):
    """Another driver works on the same run."""

    exit_code = 4


class GraphError(PipelineError, ValueError):
    """The table of stages does not make a graph."""

    exit_code = 2


class StageFailed(PipelineError):
    """A stage ended with an error.

    Args:
        stage: the node.
        reason: what it failed with, as text.
        exit_code: that of the error it failed with; the class's own where None.
    """

    def __init__(self, stage: str, reason: str, exit_code: int | None = None) -> None:
        super().__init__(stage, reason, exit_code)
        self.stage = stage
        self.reason = reason
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.stage} failed: {self.reason}"


class StageTimeout(StageFailed):
    """A stage took longer than its limit."""

    exit_code = 6


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of an error's class, also of one that Ray carried between processes."""
    carried = getattr(error, "cause", None)  # as Ray's RayTaskError has it
    if isinstance(carried, Exception):
        return exit_code_of(carried)
    if isinstance(error, PipelineError):
        return error.exit_code
    if isinstance(error, ClusterError | CorruptShardError):
        return OUTSIDE_WORLD
    if isinstance(error, DataError | WeightsError):
        return NotReady.exit_code
    return PipelineError.exit_code


class CodeEdited(StageFailed):
    """A stage's code was edited between the plan and the copy of it that the stages are given.

    Args:
        stage: the stage.
        paths: the files that mean something else than in the plan.
    """

    exit_code = 7

    def __init__(self, stage: str, paths: tuple[str, ...]) -> None:
        were = "was" if len(paths) == 1 else "were"
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        super().__init__(
            stage,
            f"{shown} {were} edited while the run began; give the same command again. Once it has "
            "begun, a run works with a copy of the code",
        )
        self.paths = paths

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.stage, self.paths)


def as_failure(stage: str, error: BaseException) -> StageFailed:
    """Return a stage's error as one of this tree."""
    if isinstance(error, StageFailed):
        return error
    return StageFailed(stage, f"{type(error).__name__}: {error}", exit_code_of(error))
