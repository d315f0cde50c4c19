"""What interrupted writes leave in a store, found and deleted."""

import os
import time
from pathlib import Path

import pytest

from cluster.leftovers import delete_leftover, find_leftovers
from cluster.local_store import LocalStore
from cluster.s3_client import s3_client
from cluster.s3_store import S3Store
from cluster.storage import ObjectStore


def test_a_store_that_was_written_well_has_none(store: ObjectStore):
    assert find_leftovers(store) == []
    store.put_bytes("networks/a", b"a")
    store.check_writable()
    assert find_leftovers(store) == []


def test_a_probe_whose_process_died_is_found_and_deleted(store: ObjectStore):
    store.put_bytes("write-probe-1", b"probe")
    (found,) = find_leftovers(store)
    assert (found.name, found.size_bytes) == ("write-probe-1", 5)
    assert found.age_s < 600
    for _ in range(2):  # the second time it is gone
        delete_leftover(store, found)
    assert store.stat("write-probe-1") is None
    assert find_leftovers(store) == []


def test_a_file_that_was_being_written_is_found_with_its_age(tmp_path: Path):
    store = LocalStore(tmp_path)
    store.put_bytes("networks/a", b"a")
    path = tmp_path / ".objectstore/incoming/half"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - 1000, time.time() - 1000))
    (found,) = find_leftovers(store)
    assert (found.name, found.size_bytes) == (".objectstore/incoming/half", 4)
    assert 990 < found.age_s < 1600
    for _ in range(2):
        delete_leftover(store, found)
    assert not path.exists()
    assert store.get_bytes("networks/a") == b"a"


@pytest.mark.s3
def test_an_upload_that_was_never_completed_is_found_and_aborted(s3_store: S3Store):
    target = {"Bucket": s3_store.bucket, "Key": f"{s3_store.prefix}/networks/large"}
    client = s3_client()
    upload = client.create_multipart_upload(**target)["UploadId"]
    client.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x" * 1000)
    (found,) = find_leftovers(s3_store)
    assert (found.name, found.upload_id, found.size_bytes) == ("networks/large", upload, 1000)
    assert found.age_s < 600
    for _ in range(2):
        delete_leftover(s3_store, found)
    assert find_leftovers(s3_store) == []
    assert list(s3_store.list_keys()) == []
