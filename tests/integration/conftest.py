"""Fixtures of whole runs: a real S3 server, and a proxy that spoils its replies."""

from tests.cluster.conftest import proxy, s3_environment, seaweedfs

__all__ = ["proxy", "s3_environment", "seaweedfs"]
