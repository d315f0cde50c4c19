"""What README and docs say is so: the map of files, commands, presets, links, snippets."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.local_store import LocalStore
from densedepth.data.depth_codec import pack_depth
from densedepth.data.encode import encode_image_png
from densedepth.data.formats import make_reader
from densedepth.protocols import get_protocol
from densedepth.sample import EncodedSample, Frame, Listing, Split
from pipeline.arguments import parse
from pipeline.config import PipelineConfig, load_config
from pipeline.errors import ConfigMistakes
from pipeline.fingerprint import Fingerprint
from pipeline.records import StageRecord, publish_record
from stages.artifacts import ShardSet
from stages.manifest import make_manifest, publish_manifest
from stages.shard_writer import ShardWriter

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] + [
    f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))
]
MAP_LINE = re.compile(r"(?P<indent> *)(?P<name>\S+) {2,}(?P<says>\S.*)")


def read_map(text: str) -> dict[str, str]:
    """Return path -> what the map says about it; a folder's path ends with a slash."""
    body = text.split("<!-- map -->\n```text\n")[1].split("\n```\n<!-- /map -->")[0]
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in filter(None, body.splitlines()):
        parts = MAP_LINE.fullmatch(line)
        assert parts, f"a line of the map is not 'NAME  what it is': {line!r}"
        depth, odd = divmod(len(parts["indent"]), 2)
        assert not odd, f"the map's indentation is two spaces a level: {line!r}"
        assert depth <= len(folders), f"the map has a file below a file: {line!r}"
        path = "".join(folders[:depth]) + parts["name"]
        assert path not in found, f"the map names {path} twice"
        found[path] = parts["says"]
        if path.endswith("/"):
            folders[depth:] = [parts["name"]]
        else:
            del folders[depth:]
    return found


def tracked_files() -> list[str]:
    """Return the files that git tracks and that are there; skips outside of a checkout."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [name for name in output.split("\0") if name and (ROOT / name).is_file()]


def line_of(file: str) -> str:
    """Return the path by which the map must name a file: its own, or its folder's."""
    path = Path(file)
    if path.name == "__init__.py" or (path.parts[0] == "tests" and len(path.parts) > 2):
        return f"{path.parent.as_posix()}/"
    return file


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    """Yield preset and overrides of every command of the pipeline in a page's shell blocks.

    Options are parsed on the way: one that does not exist ends the test.
    """
    for block in code_blocks(text, "bash"):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            for module, verb in (("pipeline.run", ["run"]), ("pipeline", [])):
                if module not in words or "shards" in words:
                    continue
                rest = [w for w in words[words.index(module) + 1 :] if w != "--plan"]
                options = parse([*verb, *rest])
                if hasattr(options, "preset"):
                    yield [options.preset, *options.overrides]


def write_readmes_presets(folder: Path) -> list[str]:
    """Write the README's TOML blocks under the names in their first lines."""
    names = []
    for block in code_blocks(README, "toml"):
        name = block.splitlines()[0].removeprefix("# ")
        assert re.fullmatch(r"[a-z]+\.toml", name), "a TOML block begins with '# NAME.toml'"
        (folder / name).write_text(block)
        names.append(name)
    return names


def assert_can_run(config: PipelineConfig) -> None:
    """Check what ``load_config`` leaves to the stages: readers' options, protocols' variants."""
    for shard in config.shard.values():
        make_reader(shard.format, shard.root, **shard.options)
    for evaluate in config.evaluate.values():
        get_protocol(evaluate.protocol)


def test_every_file_is_in_the_map():
    named = read_map(README)
    missing = sorted({line_of(file) for file in tracked_files()} - named.keys())
    assert not missing, f"README.md's map lacks {missing}: add a line for each"


def test_everything_in_the_map_is_there():
    gone = [
        path
        for path in read_map(README)
        if not (ROOT / path).exists() or path.endswith("/") != (ROOT / path).is_dir()
    ]
    assert not gone, f"README.md's map names {gone}, which are not there: remove or rename them"


def test_the_map_names_nothing_that_git_ignores():
    assert tracked_files()
    command = ["git", "-C", str(ROOT), "check-ignore", *read_map(README)]
    ignored = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    assert not ignored, f"README.md's map names {ignored}, which a fresh clone does not have"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("a.py", "is not 'NAME  what it is'"),
        ("a.py  one\na.py  two", "twice"),
        ("a.py  one\n  b.py  two", "a file below a file"),
        (" a.py  one", "two spaces a level"),
    ],
)
def test_a_map_that_cannot_be_read_is_refused(body: str, message: str):
    with pytest.raises(AssertionError, match=message):
        read_map(f"<!-- map -->\n```text\n{body}\n```\n<!-- /map -->")


def test_the_map_is_read_as_paths():
    body = "a/  folder\n  b/  inner\n    c.py  file\n  d.py  file\ne.py  file"
    paths = list(read_map(f"<!-- map -->\n```text\n{body}\n```\n<!-- /map -->"))
    assert paths == ["a/", "a/b/", "a/b/c.py", "a/d.py", "e.py"]


def test_the_readmes_presets_can_be_run(monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    names = write_readmes_presets(tmp_path)
    assert names
    for name in names:
        config = load_config(name)
        assert config.evaluate.keys() == config.shard.keys()
        assert_can_run(config)


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_presets_and_overrides_that_are_accepted(
    page: str, monkeypatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    write_readmes_presets(tmp_path)
    found = list(commands((ROOT / page).read_text()))
    if page == "README.md":
        presets = {words[0] for words in found}
        assert {"demo", "nyu", "kitti", "nyu_small", "office.toml"} <= presets
    for preset, *overrides in found:
        try:
            assert_can_run(load_config(preset, overrides))
        except ConfigMistakes as error:
            pytest.fail(f"{page}: {preset} {shlex.join(overrides)}\n{error}")


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str):
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    files = [t for t in targets if not re.match(r"[a-z]+:", t)]
    broken = [t for t in files if not ((ROOT / page).parent / t).exists()]
    assert not broken, f"{page} links to {broken}, which are not there"


def test_the_makefile_has_the_targets_that_the_pages_name():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for text in ((ROOT / page).read_text() for page in PAGES):
        named |= set(re.findall(r"`(?:[A-Z_]+=\S+ )?make ([a-z]+)", text))
        for block in code_blocks(text, "bash"):
            named |= set(re.findall(r"^make ([a-z]+)", block, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets, f"no such target: {', '.join(sorted(named - targets))}"


class OneColour:
    """A reader without files: a frame's picture and depth are its number."""

    def list_frames(self, split: Split) -> Listing:
        return Listing(tuple(Frame(str(i), "room", Path("x"), Path("x")) for i in range(3)))

    def read(self, frame: Frame) -> EncodedSample:
        value = int(frame.key)
        return EncodedSample(
            key=frame.key,
            image=encode_image_png(np.full((4, 6, 3), value, np.uint8)),
            image_format="png",
            depth=pack_depth(np.full((4, 6), 1000 + value, np.uint16)),
            depth_unit_m=1 / 1000,
        )


def test_the_shard_formats_snippet_reads_what_the_stage_wrote(monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    store = LocalStore(tmp_path / "outputs/store")
    reader = OneColour()
    frames = reader.list_frames("test").frames
    writer = ShardWriter(store, reader)
    parts = [writer.write("test", [frame]).shard for frame in frames]
    manifest = make_manifest("test", (0.1, 10.0), parts)
    shard_set = ShardSet(
        dataset="nyu",
        min_depth_m=0.1,
        max_depth_m=10.0,
        rendered=False,
        ground_truth="nyu_depths",
        dense=True,
        splits={"test": publish_manifest(store, manifest)},
    )
    record = StageRecord(
        node="shard.nyu",
        fingerprint=Fingerprint(code={}, config={}, inputs={}, sources={}, libraries={}),
        artifact=shard_set,
        seconds=1.0,
        finished_at="2026-11-22T00:00:00+00:00",
        run_id="x",
        mlflow_run_id="y",
    )
    publish_record(store, record)
    (snippet,) = code_blocks((ROOT / "docs/shard_format.md").read_text(), "python")
    seen: dict[str, object] = {}
    exec(snippet, seen)
    assert seen["count"] == 3
    assert (seen["rgb"] == np.full((4, 6, 3), 2)).all()
    assert (seen["depth_m"] == np.float32(1.002)).all()
