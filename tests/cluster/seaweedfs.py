"""A real S3 server on loopback for tests: SeaweedFS, whose binary ``weed`` is a Python package."""

import ctypes
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"
# Every port has a gRPC twin 10000 above; both stay below the kernel's ephemeral ports (32768).
PORTS, GRPC_OFFSET = range(12000, 22000), 10000
START_TIMEOUT_S, STOP_TIMEOUT_S = 60.0, 1.0
# To the kernel the thread that starts a server is its parent: one that lives as long as pytest.
_LAUNCHER = ThreadPoolExecutor(1)


class SeaweedServer:
    """One ``weed server`` with its data in a folder; may be killed and started again there.

    Attributes:
        endpoint_url: What AWS_ENDPOINT_URL must be.
        access_key: The only identity's key.
        secret_key: Its secret.
        process: The running server.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, data_dir: Path, ports: tuple[int, ...]) -> None:
        self.data_dir = data_dir
        self.access_key, self.secret_key = ACCESS_KEY, SECRET_KEY
        self.ports = self._s3, self._master, self._volume, self._filer = ports
        self.endpoint_url = f"http://127.0.0.1:{self._s3}"

    def environment(self) -> dict[str, str]:
        """The variables with which boto3, pyarrow and MLflow find this server and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def start(self) -> None:
        """Start the server and wait until it takes writes."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "test", "credentials": credentials, "actions": actions}
        config = self.data_dir / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        command = [
            *(_weed(), f"-logdir={self.data_dir}", "server", f"-dir={self.data_dir}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={config}"),
            *(f"-s3.port={self._s3}", f"-master.port={self._master}"),
            *(f"-volume.port={self._volume}", f"-filer.port={self._filer}"),
            *("-volume.max=0", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"),
            *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]
        with (self.data_dir / "server.log").open("ab") as log:
            self.process = _LAUNCHER.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            ).result()
        try:
            # The S3 side answers, and the master has a volume to write to.
            self._wait_for(f"{self.endpoint_url}/healthz", b"")
            self._wait_for(f"http://127.0.0.1:{self._master}/dir/assign", b'"fid"')
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server; kill it where it does not listen."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        for port in self.ports:
            for socket_path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_path.unlink(missing_ok=True)
            for socket_path in Path("/tmp").glob(f"seaweedfs-*-{port + GRPC_OFFSET}.sock"):
                socket_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the server as a power cut does."""
        self.process.kill()
        self.process.wait()

    def make_bucket(self, name: str) -> str:
        """Make a bucket, unless it is there; return its name."""
        import boto3

        client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )
        with suppress(
            client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou
        ):
            client.create_bucket(Bucket=name)
        return name

    def _wait_for(self, url: str, expected: bytes) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with suppress(urllib.error.URLError, OSError):
                # Loopback is never behind a proxy.
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(url, timeout=2) as reply:
                    if expected in reply.read():
                        return
            time.sleep(0.05)
        log = (self.data_dir / "server.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"SeaweedFS gave no answer at {url}; the end of its log:\n{log}")


@contextmanager
def seaweedfs_server(data_dir: Path) -> Iterator[SeaweedServer]:
    """Run an S3 server on free ports of 127.0.0.1 and end it afterwards.

    Args:
        data_dir: Where it keeps data and log; made if need be.

    Yields:
        The running server: ``endpoint_url``, ``access_key``, ``secret_key``, ``environment()``,
        ``make_bucket(name)``; ``kill()`` and ``start()`` for tests of its loss.
    """
    for attempt in range(3):  # another process may take a port between the check and the start
        server = SeaweedServer(data_dir / str(attempt), _free_ports(4))
        try:
            server.start()
            break
        except RuntimeError:
            if attempt == 2:
                raise
    try:
        yield server
    finally:
        server.stop()


def _weed() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("no 'weed': install the dev dependencies, or run pytest -m 'not s3'")
    return found


def _free_ports(count: int) -> tuple[int, ...]:
    ports: list[int] = []
    # Test runs at once on one machine begin at different places.
    first = time.time_ns() // 1000 % len(PORTS)
    for port in (*PORTS[first:], *PORTS[:first]):
        if all(_is_free(number) for number in (port, port + GRPC_OFFSET)):
            ports.append(port)
        if len(ports) == count:
            return tuple(ports)
    raise RuntimeError(f"no {count} free ports in {PORTS} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _die_with_parent() -> None:
    """Let the kernel kill the server when pytest dies without clearing up (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
