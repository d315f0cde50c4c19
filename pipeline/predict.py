"""The verb ``predict``: a trained network's depth, in metres, of a user's own pictures."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from densedepth.errors import BadFrameError
from pipeline.errors import UsageMistake, exit_code_of
from pipeline.history import records_of
from pipeline.launch import store_of
from pipeline.output import console, print_json
from pipeline.runs import load_run
from stages.artifacts import Checkpoint


def predict_verb(options: argparse.Namespace) -> int:
    """Write each picture's depth, and say from where to where it goes.

    A picture that cannot be read is told and left out, and decides the exit code.
    """
    # Heavy, and the other verbs need none of it.
    from densedepth.own_pictures import find_pictures, read_picture, write_depth
    from densedepth.serving import DepthPredictor, fastest_device

    folder = Path(options.output)
    starts = _starts([p for word in options.pictures for p in find_pictures(Path(word))], folder)
    told: list[dict[str, Any]] = []
    exit_code = 0
    with _network_file(options) as path:
        predictor = DepthPredictor(path, fastest_device())
    for start, picture_path in starts.items():
        try:
            picture = read_picture(picture_path)
        except BadFrameError as error:
            exit_code = exit_code_of(error)
            sys.stderr.write(f"{error}\n")
            told.append({"picture": str(picture_path), "error": str(error)})
            continue
        depth_m = predictor.predict(picture[None])[0]
        try:
            metres, view = write_depth(depth_m, picture, start)
        except OSError as error:
            raise UsageMistake(f"{start}: {error.strerror or error}; set --output") from error
        near_m, median_m, far_m = (float(m) for m in np.percentile(depth_m, (1, 50, 99)))
        told.append(
            {
                "picture": str(picture_path),
                "size_px": list(depth_m.shape),
                "near_m": near_m,
                "median_m": median_m,
                "far_m": far_m,
                "metres": str(metres),
                "view": str(view),
            }
        )
        if not options.json:
            text = (
                f"{picture_path}: mostly {near_m:.3g} to {far_m:.3g} m, median {median_m:.3g} m; "
                f"{metres}, {view}"
            )
            console().print(text, markup=False, soft_wrap=True)
    if options.json:
        print_json(told)
    return exit_code


def _starts(pictures: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Name what is written for each picture; no two may meet."""
    starts: dict[Path, Path] = {}
    for path in pictures:
        if path.resolve().parent == folder.resolve():
            raise UsageMistake(f"{folder} holds the picture {path}: set --output to another folder")
        other = starts.setdefault(folder / path.stem, path)
        if other != path:
            raise UsageMistake(
                f"{other} and {path} would both become {folder / path.stem}.npy: predict them "
                "apart, each with its own --output"
            )
    return starts


@contextmanager
def _network_file(options: argparse.Namespace) -> Iterator[Path]:
    """Give the network's file: the one that is named, or a run's, out of its store."""
    is_url = options.network.startswith("file://")  # as a run's end names it
    named = Path(url2pathname(urlsplit(options.network).path) if is_url else options.network)
    if named.suffix == ".safetensors" or named.is_file():
        if options.dataset:
            raise UsageMistake(
                f"--dataset {options.dataset} chooses among a run's networks, and {named} is a "
                "file: leave --dataset out"
            )
        yield named
        return
    store = store_of(options)
    state = load_run(store, options.network)
    networks = {
        record.artifact.dataset: record.artifact.network
        for record in records_of(store, state).values()
        if isinstance(record.artifact, Checkpoint)
    }
    if not networks:
        raise UsageMistake(f"{state.name} has trained no network yet")
    if options.dataset not in networks and (options.dataset or len(networks) > 1):
        raise UsageMistake(
            f"--dataset {options.dataset or 'is not given'}: {state.name} has networks for "
            f"{', '.join(networks)}"
        )
    ref = networks[options.dataset or next(iter(networks))]
    with TemporaryDirectory(prefix="network-") as scratch:
        yield store.fetch(ref, Path(scratch))
