"""The verbs of the command line, and what each takes."""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipeline.config import preset_names
from pipeline.errors import UsageMistake

VERBS = {
    "run": ("pipeline.launch", "run stages that are not up to date"),
    "plan": ("pipeline.launch", "say what would run and why; run nothing"),
    "resume": ("pipeline.launch", "go on with a run that was stopped, failed or died"),
    "status": ("pipeline.history", "how a run stands, while it goes on or afterwards"),
    "list": ("pipeline.history", "all runs, the newest first"),
    "show": ("pipeline.history", "one run: stages, results, events, configuration"),
    "diff": ("pipeline.compare", "what differs between two runs: config, data, code, metrics"),
    "graph": ("pipeline.graph", "the stages and what flows between them"),
    "gc": ("pipeline.sweep", "objects of the store that nothing refers to"),
    "verify": ("pipeline.verify", "read every artifact again and compare the digests"),
    "predict": ("pipeline.predict", "estimate the depth of pictures by a trained network"),
    "shards": ("pipeline.shards", "look after stored data: info, verify, repair, preview, export"),
    "doctor": ("pipeline.doctor", "check this machine, the cluster, the store, MLflow, the data"),
    "completion": ("pipeline.completion", "print the shell's code for completing these commands"),
}
"""Verb -> the module with a function of that name, and what it does."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command; overrides may stand before and after options."""
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    options, rest = parser.parse_known_args(list(words))
    takes_overrides = hasattr(options, "overrides")
    wrong = [word for word in rest if word.startswith("-") or not takes_overrides]
    if wrong:
        parser.error(f"{options.verb} does not know {' '.join(wrong)}")
    if takes_overrides:
        options.overrides += [*rest, *options.set]
        if options.preset and "=" in options.preset:
            options.preset, options.overrides = None, [options.preset, *options.overrides]
        options.preset = options.preset or "demo"
    return options


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are errors as all others, so that they can be told as JSON."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command as every mistake is refused."""
        raise UsageMistake(f"{self.format_usage()}{self.prog}: error: {message}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = Parser(prog="python -m pipeline", description=main_description())
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (_, what) in VERBS.items():
        made = verbs.add_parser(verb, help=what, description=f"{what[0].upper()}{what[1:]}.")
        _ARGUMENTS[verb](made)
    return parser


def main_description() -> str:
    """Return the first paragraph of the help."""
    return (
        "Raw frames to a registered depth network: shard, train, ablate, evaluate, report, "
        "register. Every verb says more with --help."
    )


def _configuration(parser: Any) -> None:
    _complete(
        parser.add_argument(
            "preset",
            nargs="?",
            help=f"{', '.join(preset_names())}, or a .toml file; default: demo",
        ),
        "presets",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="such as train.nyu.recipe.epochs=5"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="the same as an option"
    )


def _stages(parser: Any) -> None:
    for option, target, what in (
        ("--from", "first", "these stages and all that follows from them"),
        ("--to", "last", "these stages and all that they need"),
        ("--only", "only", "these stages alone; what they need must be up to date"),
    ):
        added = parser.add_argument(
            option, dest=target, action="append", default=[], metavar="STAGE",
            help=f"{what}; train.nyu, train, or '*.nyu', several with commas",
        )  # fmt: skip
        _complete(added, "stages")
    forced = parser.add_argument(
        "--force", action="append", nargs="?", const="", metavar="STAGE",
        help="run these although they are up to date; without a name, all that is chosen",
    )  # fmt: skip
    _complete(forced, "stages")
    parser.add_argument(
        "--downstream", action="store_true", help="with --only or --force: and all that follows"
    )


def _driving(parser: Any) -> None:
    parser.add_argument(
        "--keep-going", action="store_true", help="after a failure, run what does not need it"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait for another driver of the same run to end"
    )


def _json(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _store(parser: Any) -> None:
    parser.add_argument(
        "--store", default="", metavar="URL", help="folder or s3://; default: outputs/store"
    )


def _run(parser: Any, nargs: Any = None, name: str = "run", what: str = "") -> None:
    text = what or "RUN, RUN@ATTEMPT, or how its id begins"
    _complete(parser.add_argument(name, nargs=nargs, metavar=name.upper(), help=text), "runs")


def _run_arguments(parser: Any) -> None:
    for add in (_configuration, _stages, _driving, _json):
        add(parser)


def _plan_arguments(parser: Any) -> None:
    for add in (_configuration, _stages, _json):
        add(parser)


def _resume_arguments(parser: Any) -> None:
    _run(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="session.KEY or execution.KEY; anything else would be another run",
    )  # fmt: skip
    for add in (_driving, _store, _json):
        add(parser)


def _status_arguments(parser: Any) -> None:
    _run(parser, "?", what="RUN or RUN@ATTEMPT; default: the newest")
    parser.add_argument("--follow", action="store_true", help="go on until the run has ended")
    _store(parser)
    _json(parser)


def _list_arguments(parser: Any) -> None:
    _store(parser)
    _json(parser)


def _show_arguments(parser: Any) -> None:
    _run(parser)
    parser.add_argument("--events", action="store_true", help="what happened, in order")
    parser.add_argument("--config", action="store_true", help="the whole configuration")
    _store(parser)
    _json(parser)


def _diff_arguments(parser: Any) -> None:
    _run(parser, name="old")
    _run(parser, name="new")
    _store(parser)
    _json(parser)


def _graph_arguments(parser: Any) -> None:
    _configuration(parser)
    parser.add_argument(
        "--run", metavar="RUN", default="", help="states of this run, not of a plan"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format", choices=("terminal", "mermaid", "html"), default="terminal", help="how to draw"
    )
    _json(form)
    parser.add_argument("--output", metavar="FILE", default="", help="write it there")


def _gc_arguments(parser: Any) -> None:
    parser.add_argument("--delete", action="store_true", help="delete them; default: only say what")
    parser.add_argument(
        "--keep-runs", type=int, metavar="N",
        help="forget all but the N newest runs first, with the results that only they used",
    )  # fmt: skip
    _store(parser)
    _json(parser)


def _verify_arguments(parser: Any) -> None:
    _run(parser, "?", what="RUN or RUN@ATTEMPT; default: everything that is recorded")
    _store(parser)
    _json(parser)


def _predict_arguments(parser: Any) -> None:
    _complete(
        parser.add_argument(
            "network",
            metavar="NETWORK",
            help="a network's file (.safetensors) or a run: RUN, RUN@ATTEMPT, how its id begins",
        ),
        "runs",
    )
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="a JPEG or PNG, or a folder of them"
    )
    parser.add_argument(
        "--dataset", default="", metavar="NAME", help="which of a run's networks, such as nyu"
    )
    parser.add_argument(
        "--output", default="predictions", metavar="FOLDER", help="default: predictions"
    )
    _store(parser)
    _json(parser)


def _shards_arguments(parser: Any) -> None:
    parser.add_argument("words", nargs="*", help="see `python -m pipeline shards --help`")


def _doctor_arguments(parser: Any) -> None:
    _configuration(parser)
    _json(parser)


def _completion_arguments(parser: Any) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="whose code")


_ARGUMENTS: dict[str, Callable[[Any], None]] = {
    verb: globals()[f"_{verb}_arguments"] for verb in VERBS
}


def _complete(action: Any, what: str) -> None:
    """Say what completes an argument; looked up when a shell asks."""

    def completer(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        from pipeline.completion import candidates

        return candidates(what, getattr(parsed_args, "preset", None))

    action.completer = completer
