"""Whether encoders can start from their weights, found out before a run starts what needs them.

PyTorch looks at the files in a process of its own, for a driver without it is far smaller. What is
to be downloaded is then in torch's cache on this node; others download it when they train.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from cluster.errors import without_credentials
from cluster.session import PROJECT_ROOT
from pipeline.dag import Node
from pipeline.errors import NotReady


@dataclass(frozen=True)
class Encoder:
    """An encoder and what it starts from: the settings of the same names."""

    encoder: str
    weights: str
    weights_sha256: str | None

    def __str__(self) -> str:
        """The settings by which they are found in a configuration, without a URL's token."""
        weights = without_credentials(self.weights.partition("?")[0])
        return f"network.encoder = {self.encoder!r}, network.weights = {weights!r}"

    @property
    def is_certain(self) -> bool:
        """Whether nothing has to be looked for."""
        return self.weights == "none" and not self.encoder.startswith("timm:")


@dataclass(frozen=True)
class Found:
    """What was found of an encoder's weights.

    Attributes:
        place: their file; empty for random weights.
        url: where the file is to be downloaded from; empty where it is here.
        problem: why training could not start; else empty.
    """

    place: str = ""
    url: str = ""
    problem: str = ""


def encoders_of(nodes: Iterable[Node]) -> dict[Encoder, list[str]]:
    """Return what stages train, and the names of those that do; an ablation's studies too."""
    found: dict[Encoder, list[str]] = {}
    for node in nodes:
        for network in getattr(node.stage, "networks", lambda config: ())(node.config):
            encoder = Encoder(network.encoder, network.weights, network.weights_sha256)
            names = found.setdefault(encoder, [])
            names += [] if node.name in names else [node.name]
    return found


def look(encoders: Sequence[Encoder], *, download: bool = False) -> list[Found]:
    """Say of each encoder what training will find; nothing is changed but torch's cache.

    Args:
        encoders: what is looked for.
        download: whether to download what is not here yet.
    """
    asked = [encoder for encoder in encoders if not encoder.is_certain]
    if not asked:
        return [Found() for _ in encoders]
    answers = dict(zip(asked, _ask(asked, download), strict=True))
    return [answers.get(encoder, Found()) for encoder in encoders]


def fetch_weights(nodes: Iterable[Node], say: Callable[[str], None]) -> None:
    """Make sure that stages that train can start from their weights; download what is not here.

    Args:
        nodes: stages that may run.
        say: shows a sentence to whoever waits.

    Raises:
        NotReady: with all that cannot be loaded, and why.
    """
    wanted = encoders_of(nodes)
    found = look(list(wanted))
    if urls := [f.url for f in found if f.url]:
        say(f"downloading {', '.join(dict.fromkeys(urls))}")
        found = look(list(wanted), download=True)
    reasons = [
        f"{', '.join(names)}: {encoder}: {f.problem}"
        for f, (encoder, names) in zip(found, wanted.items(), strict=True)
        if f.problem
    ]
    if reasons:
        raise NotReady(tuple(reasons))


def _ask(encoders: Sequence[Encoder], download: bool) -> list[Found]:
    """Let another process look; addresses may hold tokens, and no list of processes shows them."""
    question = json.dumps({"encoders": [asdict(e) for e in encoders], "download": download})
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.pretrained"],
        cwd=PROJECT_ROOT, input=question, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        why = f"PyTorch cannot look at the encoder's weights: {lines[-1][:300]}"
        return [Found(problem=why) for _ in encoders]
    return [Found(**answer) for answer in json.loads(done.stdout.strip().splitlines()[-1])]


def _look_here(encoder: Encoder, download: bool) -> Found:
    from densedepth.errors import WeightsError
    from densedepth.weights import Download, check_encoder_weights

    words = (encoder.encoder, encoder.weights, encoder.weights_sha256)
    try:
        found = check_encoder_weights(*words)
        if isinstance(found, Download) and download:
            found.fetch()
            found = check_encoder_weights(*words)
    except WeightsError as error:
        return Found(problem=str(error))
    if isinstance(found, Download):
        return Found(str(found.path), found.shown)
    return Found("" if found is None else str(found))


if __name__ == "__main__":
    _question = json.load(sys.stdin)
    _answers = [_look_here(Encoder(**e), _question["download"]) for e in _question["encoders"]]
    sys.stdout.write("\n" + json.dumps([asdict(answer) for answer in _answers]) + "\n")
