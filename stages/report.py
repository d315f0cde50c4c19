"""Placeholder of the lead until the report stage is written over it."""

from stages.recipe import Settings


class ReportConfig(Settings):
    """Being written."""
