"""``gc``: what nothing refers to goes, everything else stays."""

import json
import os
import time

import pytest

from cluster.local_store import LocalStore
from pipeline.cli import main
from pipeline.lease import Holder, Lease, lease_key, this_process
from pipeline.runs import StageState, load_run
from stages.shard_writer import ShardResult
from tests.pipeline.small_graph import Settings, execute, executed, graph


@pytest.fixture
def store(run_one: LocalStore) -> LocalStore:
    return run_one


def garbage(capsys, *words: str) -> set[str]:
    assert main(["gc", "--json", *words]) == 0
    return set(json.loads(capsys.readouterr().out)["objects"])


def test_a_store_of_finished_runs_has_nothing_to_delete(store, capsys):
    assert garbage(capsys) == set()
    assert main(["gc"]) == 0
    assert "everything is referred to" in capsys.readouterr().out


def test_leftovers_are_listed_and_only_deleted_on_demand(store, capsys):
    leftovers = {
        "networks/half-done.safetensors",
        "shards/ab/abcd.tar",
        "ray/one-a-000000000000/checkpoint/state.pt",
        "claims/a/of-the-dead",
    }
    for key in leftovers:
        store.put_bytes(key, b"rest")
    store.put_bytes("mlflow/1/model", b"not the pipeline's")
    before = set(store.list_keys())
    assert garbage(capsys) == leftovers
    assert set(store.list_keys()) == before
    assert main(["gc"]) == 0
    assert "4 objects, 0.0 MB would be deleted; do it with --delete" in capsys.readouterr().out
    assert garbage(capsys, "--delete") == leftovers
    assert set(store.list_keys()) == before - leftovers
    executed.clear()
    execute(graph(), store, run_id="one")
    assert executed == []


def test_sweeping_a_store_that_is_not_there_does_not_make_it(tmp_path, capsys):
    missing = tmp_path / "no-such-folder"
    assert garbage(capsys, "--delete", "--store", str(missing)) == set()
    assert not missing.exists()


def test_what_a_stopped_run_needs_to_go_on_stays(store, capsys):
    execute(graph(b=Settings(text="B", fail="no luck")), store, run_id="two")
    digest = load_run(store, "two").stages["b"].fingerprint[:12]
    kept, done = f"ray/two-b-{digest}/state.pt", "ray/one-b-aaaaaaaaaaaa/state.pt"
    for key in (kept, done):
        store.put_bytes(key, b"checkpoint")
    assert garbage(capsys) == {done}


def test_notes_of_sharding_stay_with_their_shards(store, capsys):
    ref = store.put_bytes("shards/ab/abcd.tar", b"tar")
    entry = {**ref.model_dump(), "num_samples": 1, "index": ref.model_dump()}
    note = ShardResult.model_validate({"shard": entry, "is_dense": True})
    store.put_bytes("shard_results/1.json", note.model_dump_json().encode())
    assert garbage(capsys) == {"shards/ab/abcd.tar", "shard_results/1.json"}
    state = load_run(store, "one")
    state.stages["shard.nyu"] = StageState(status="killed", fingerprint="f" * 64)
    store.put_bytes("runs/one/0001.json", state.model_dump_json().encode())
    assert garbage(capsys) == set()  # the sharding may go on from them


def test_forgotten_runs_go_with_the_results_that_only_they_used(store, capsys):
    execute(graph(b=Settings(text="B")), store, run_id="two")
    assert garbage(capsys, "--keep-runs", "2") == set()
    gone = garbage(capsys, "--keep-runs", "1", "--delete")
    assert {"networks/b-b", "runs/one/0001.json", "runs/one/0001.jsonl"} <= gone
    assert {"networks/a-a", "networks/b-B"}.isdisjoint(gone)
    executed.clear()
    execute(graph(b=Settings(text="B")), store, run_id="two")
    assert executed == []
    execute(graph(), store, run_id="one")
    assert executed == ["b", "e"]


def test_nothing_is_deleted_while_a_run_works(store, capsys):
    store.put_bytes("networks/half-done", b"being written")
    driver = Lease(store, lease_key("one"), this_process("one"))
    assert driver.try_acquire()
    assert main(["gc", "--delete"]) == 4
    assert "works with file://" in capsys.readouterr().err
    assert store.stat("networks/half-done") is not None
    driver.release()
    assert garbage(capsys, "--delete") == {"networks/half-done"}


def test_what_cannot_be_read_is_never_taken_for_nothing(store, capsys):
    """A record or state of another version may refer to anything."""
    (record,) = (key for key in store.list_keys("records/a/") if not key.endswith("latest.json"))
    for key in (record, "runs/one/0001.json"):
        content = store.get_bytes(key)
        store.put_bytes(key, content.replace(b"{", b'{"of_a_later_version": 1,', 1))
        before = set(store.list_keys())
        for words in (("gc",), ("gc", "--delete"), ("gc", "--keep-runs", "0", "--delete")):
            assert main(words) == 2
            assert key in capsys.readouterr().err
        assert set(store.list_keys()) == before
        store.put_bytes(key, content)
    store.put_bytes(record, b"{")
    assert main(["verify"]) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_a_dead_driver_elsewhere_does_not_keep_the_sweep_out_for_ever(store, monkeypatch, capsys):
    far = Holder(owner="o", run_id="one", host="far", machine="far/x/y", pid=7)
    store.put_bytes(lease_key("one"), far.data())
    monkeypatch.setattr("pipeline.lease.DEAD_AFTER_S", 0.5)
    monkeypatch.setattr("pipeline.gate.DEAD_AFTER_S", 0.5)
    store.put_bytes("networks/half-done", b"rest")
    assert garbage(capsys, "--delete") == {"networks/half-done"}


def test_a_negative_number_of_runs_is_refused(store, capsys):
    assert main(["gc", "--keep-runs", "-1"]) == 2
    assert "--keep-runs -1" in capsys.readouterr().err


def test_what_interrupted_writes_left_goes_once_it_is_old(store, capsys):
    """A file that was being written when its process died, and a probe of doctor's."""
    old, young = store.root / ".objectstore/incoming/old", store.root / "write-probe-young"
    for path in (old, young):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    assert main(["gc", "--json"]) == 0
    writes = json.loads(capsys.readouterr().out)["interrupted_writes"]
    assert [(w["name"], w["size_bytes"], w["is_old"]) for w in writes] == [
        (".objectstore/incoming/old", 4, True),
        ("write-probe-young", 4, False),
    ]
    assert main(["gc"]) == 0
    shown = capsys.readouterr().out
    assert "1 objects, 0.0 MB would be deleted; do it with --delete" in shown
    assert "interrupted writes" in shown
    assert "1 writes of the last day, perhaps not ended, are left alone" in shown
    assert old.exists()
    assert garbage(capsys, "--delete") == set()
    assert (old.exists(), young.exists()) == (False, True)


def test_a_note_of_a_failure_stays_as_long_as_a_run_with_its_stage(store, capsys):
    execute(graph(b=Settings(text="B", fail="no luck")), store, run_id="two")
    assert store.stat("records/b/failed.json") is not None
    assert garbage(capsys) == set()
    assert "records/b/failed.json" in garbage(capsys, "--keep-runs", "0")
