"""Whether a stage that failed is tried again, and how long it may take."""

import pytest
from pydantic import ValidationError
from ray.exceptions import ActorDiedError, NodeDiedError, WorkerCrashedError

from cluster.errors import NoSpaceLeft, ObjectCorrupt, StoreRefused, StoreUnavailable
from cluster.local_store import LocalStore
from cluster.transient import is_transient
from pipeline import retry as module
from pipeline.errors import StageFailed
from pipeline.retry import MAX_WAIT_S, ExecutionConfig, patiently, wait_before_retry_s
from pipeline.runs import load_run
from tests.pipeline.small_graph import Settings, errors, execute, executed, graph

pytestmark = pytest.mark.usefixtures("small_stages")

CURABLE = [
    StoreUnavailable("s3://b", "slow down"),
    ConnectionResetError("peer"),
    TimeoutError("no answer"),
    WorkerCrashedError(),
    NodeDiedError("node"),
    ActorDiedError(),
]
FINAL = [
    ValueError("bad setting"),
    StoreRefused("s3://b", "no such bucket"),
    NoSpaceLeft("/disk", "full"),
    ObjectCorrupt("s3://b/k", "other bytes"),
    FileNotFoundError("raw frame"),
    MemoryError(),
]


@pytest.mark.parametrize("error", CURABLE, ids=lambda e: type(e).__name__)
def test_what_time_can_cure_is_tried_again(error):
    assert is_transient(error)
    assert wait_before_retry_s(error, 1, ExecutionConfig()) is not None


@pytest.mark.parametrize("error", FINAL, ids=lambda e: type(e).__name__)
def test_what_time_cannot_cure_is_not(error):
    assert not is_transient(error)
    assert wait_before_retry_s(error, 1, ExecutionConfig()) is None


def test_waits_double_and_have_a_bound_and_an_end():
    config = ExecutionConfig(max_retries=20, retry_wait_s=5.0)
    waits = [wait_before_retry_s(CURABLE[0], n, config, jitter=0.5) for n in range(1, 10)]
    assert waits[:4] == [5.0, 10.0, 20.0, 40.0]
    assert waits[-1] == MAX_WAIT_S
    assert wait_before_retry_s(CURABLE[0], 21, config) is None
    assert wait_before_retry_s(CURABLE[0], 1, ExecutionConfig(max_retries=0)) is None


def test_drivers_that_failed_together_come_back_apart():
    config = ExecutionConfig(retry_wait_s=8.0)
    first = wait_before_retry_s(CURABLE[0], 1, config, jitter=0.0)
    last = wait_before_retry_s(CURABLE[0], 1, config, jitter=1.0)
    assert (first, last) == (6.0, 10.0)
    drawn = {wait_before_retry_s(CURABLE[0], 1, config) for _ in range(20)}
    assert len(drawn) > 1
    assert all(first <= wait_s <= last for wait_s in drawn if wait_s is not None)


def test_a_call_is_repeated_until_it_works_or_patience_ends(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    answers = [StoreUnavailable("s3://b", "down")] * 3

    def call(word: str) -> str:
        if answers:
            raise answers.pop()
        return word

    assert patiently(call, "done") == "done"
    assert slept == [0.5, 1.0, 2.0]
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    answers = [StoreUnavailable("s3://b", "down")]
    with pytest.raises(StoreUnavailable):
        patiently(call, "done")
    answers = [ValueError("never")]
    with pytest.raises(ValueError, match="never"):
        patiently(call, "done")


def test_the_limit_that_fits_best_counts():
    config = ExecutionConfig(time_limits_s={"*": 9, "train": 5, "train.nyu": 1, "*.kitti": 7})
    limits = [config.time_limit_s(n) for n in ("train.nyu", "train.sun", "shard.kitti", "report")]
    assert limits == [1, 5, 7, 9]
    assert ExecutionConfig().time_limit_s("train.nyu") is None


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="the limit of train is 0 s"):
        ExecutionConfig(time_limits_s={"train": 0})


def test_what_a_retry_can_cure_is_tried_again_and_the_rest_is_not(store):
    settings = ExecutionConfig(retry_wait_s=0.01)
    errors["a"] = [StoreUnavailable("s3://b", "slow down"), StoreUnavailable("s3://b", "again")]
    errors["c"] = [ConnectionResetError("gone")]
    records, recorder, text = execute(graph(), store, settings=settings)
    assert set(records) == {"a", "b", "c", "d", "e"}
    assert (executed.count("a"), executed.count("c"), executed.count("b")) == (3, 2, 1)
    assert "try 2 in 0 s after StoreUnavailable" in text
    assert set(recorder.statuses().values()) == {"FINISHED"}
    assert load_run(store, "test").stages["a"].tries == 3

    executed.clear()
    errors["b"] = [ValueError("always")]
    error, _, _ = execute(graph(b=Settings(text="B")), store, settings=settings)
    assert isinstance(error, StageFailed)
    assert error.exit_code == 1
    assert executed == ["b"]


def test_retries_end(store):
    settings = ExecutionConfig(retry_wait_s=0.0, max_retries=1)
    errors["a"] = [StoreUnavailable("s3://b", "down")] * 3
    error, _, _ = execute(graph(), store, settings=settings)
    assert "a failed: StoreUnavailable: s3://b: down" in str(error)
    assert error.exit_code == 5
    assert executed.count("a") == 2


def test_a_store_that_is_away_for_a_moment_costs_nothing(store, monkeypatch):
    """The first write of each record and claim, and a write of the log, find nobody."""
    monkeypatch.setattr("pipeline.retry.time.sleep", lambda seconds: None)
    refused: set[str] = set()

    def flaky(put):
        def write(self, key, data):
            began = self.stat("runs/test/0001.json") is not None
            if began and key not in refused and not key.endswith("/lease"):
                refused.add(key)
                raise StoreUnavailable(self.url, "nobody answers")
            return put(self, key, data)

        return write

    for name in ("put_bytes", "put_bytes_if_absent"):
        monkeypatch.setattr(LocalStore, name, flaky(getattr(LocalStore, name)))
    settings = ExecutionConfig(retry_wait_s=0.0)  # the stages' own writes are refused too
    records, _, _ = execute(graph(), store, settings=settings)
    assert set(records) == {"a", "b", "c", "d", "e"}
    assert {key.split("/")[0] for key in refused} == {"claims", "networks", "records", "runs"}
