"""``python -m pipeline VERB``. PYTHON_ARGCOMPLETE_OK."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer a command; return the exit code.

    Ctrl-C is answered while the code is still being imported, too, before anything was begun.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
        signal.signal(signal.SIGINT, _stop_at_once)
    from pipeline import cli

    signal.signal(signal.SIGINT, before)
    return cli.main(arguments)


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped before anything was begun\n")
    if "--json" in sys.argv:
        os.write(1, b'{"error": "stopped", "kind": "KeyboardInterrupt", "exit_code": 130}\n')
    os._exit(130)  # an exception would end in whichever import was going on


if __name__ == "__main__":
    sys.exit(main())
