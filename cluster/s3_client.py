"""This process's connection to S3: one client, made anew after a fork."""

import functools
import os
import threading
from typing import Any

_LOCKS: dict[int, threading.Lock] = {}


def s3_client() -> Any:
    """Return the client for the environment as it is now; safe among threads.

    Endpoint, region and credentials are boto3's own to find (``AWS_ENDPOINT_URL`` ...).
    """
    environment = sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_"))
    process_id = os.getpid()
    # A lock per process: a child does not inherit one that another thread holds.
    with _LOCKS.setdefault(process_id, threading.Lock()):
        return _client(process_id, hash(tuple(environment)))


@functools.lru_cache(maxsize=8)
def _client(process_id: int, environment_hash: int) -> Any:
    """Make this process's client for this environment."""
    import boto3
    from botocore.config import Config

    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        retries={"mode": "standard"},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
        tcp_keepalive=True,
        # Servers of one's own seldom have a host name per bucket; pyarrow does the same.
        s3={"addressing_style": "path"} if own_endpoint else None,
    )
    return boto3.session.Session().client("s3", config=config)
