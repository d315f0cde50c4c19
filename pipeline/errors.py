"""What the pipeline itself refuses or fails with, as a tree; each with its exit code.

::

    PipelineError
    ├── ConfigMistakes   2  every mistake of the configuration, at once
    ├── NotReady         1  what the settings name is not there: data, weights
    ├── GraphError       2  the table of stages does not make a graph
    └── StageFailed      1  a stage ended with an error; what was finished before it stays
"""

from dataclasses import dataclass


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
        value = f" = {self.value}" if self.value else ""
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
    """What the settings name is not there; nothing was started."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "\n".join(self.reasons)


class GraphError(PipelineError, ValueError):
    """The table of stages does not make a graph."""

    exit_code = 2


class StageFailed(PipelineError):
    """A stage ended with an error."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.stage} failed: {self.reason}"
