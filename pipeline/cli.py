"""The command line: ``python -m pipeline VERB``. Each verb is a function of a module of its own.

Nothing heavy is imported for an answer that needs nothing heavy: ``plan`` knows no torch.
"""

import argparse
import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from cluster.errors import ClusterError
from densedepth.errors import DepthError
from pipeline.arguments import VERBS, parse
from pipeline.config import outputs_root
from pipeline.errors import PipelineError, exit_code_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and execute; return the exit code (``pipeline.errors`` has them)."""
    received: list[int] = []

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        sys.exit(128 + number)

    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, stop)
    try:
        if words[:1] == ["shards"]:  # has verbs and options of its own
            return int(importlib.import_module("pipeline.shards").main(words[1:]))
        options = parse(words)
        module = importlib.import_module(VERBS[options.verb][0])
        verb: Callable[[argparse.Namespace], int] = getattr(module, f"{options.verb}_verb")
        return verb(options)
    except (PipelineError, ClusterError, DepthError) as error:
        return _refuse(words, str(error), error, exit_code_of(error))
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as error:
        if received:  # Ray's waiting puts its own code in the place of ours
            return _refuse(words, _STOPPED, error, 128 + received[0])
        raise
    except KeyboardInterrupt as error:
        return _refuse(words, _STOPPED, error, 130)
    except Exception as error:  # the last line of defence: no traceback in a user's face
        code = _refuse(words, f"{type(error).__name__}: {error}", error, 1)
        _keep_traceback()
        return code


_STOPPED = "stopped; the same command goes on from here"


def _refuse(words: Sequence[str], text: str, error: BaseException, exit_code: int) -> int:
    """Say why a command did not end well, as JSON too where that was asked for."""
    sys.stderr.write(f"{text}\n")
    if "--json" in words:
        from pipeline.output import print_json

        kind = type(error).__name__
        print_json({"error": text, "kind": kind, "exit_code": exit_code}, one_line=True)
    return exit_code


def _keep_traceback() -> None:
    trace = outputs_root() / "error.txt"
    try:
        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text(traceback.format_exc())
        sys.stderr.write(f"The traceback is in {trace}\n")
    except OSError as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{trace} for the traceback cannot be written: {error.strerror}\n")
