"""Run the pipeline: ``python -m pipeline.run [PRESET] [KEY=VALUE ...]``.

The short form of ``python -m pipeline run``; with ``--plan``, of ``python -m pipeline plan``.
"""

import sys
from collections.abc import Sequence

from pipeline import __main__ as pipeline


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or plan; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = "plan" if "--plan" in words else "run"
    return pipeline.main([verb, *(word for word in words if word != "--plan")])


if __name__ == "__main__":
    sys.exit(main())
