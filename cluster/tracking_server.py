"""Whether MLflow's server or database can be used, and why not."""

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

from cluster.errors import TrackingError

_DISK_ADVICE = (
    "Free some space or choose a place that can be written, then run the same command again"
)

_REFUSED_ADVICE = (
    "Give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, of a "
    "user who may; a server that knows other names for itself wants --allowed-hosts"
)


@contextlib.contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow, its database and its files raise into ``TrackingError``.

    Raises:
        TrackingError: with the first line of the cause.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error)
        raise TrackingError(uri, reason.splitlines()[0], _DISK_ADVICE) from error
    except OSError as error:
        place = error.filename or uri
        raise TrackingError(str(place), error.strerror or str(error), _DISK_ADVICE) from error
    except MlflowException as error:
        cause = re.search(r"\(sqlite3\.\w+\) ([^\n]+)", str(error))
        reason = cause[1] if cause else str(error).splitlines()[0][:500]
        raise TrackingError(uri, reason, _DISK_ADVICE if cause else None) from error


def check_server(uri: str) -> str:
    """Make sure that a server answers, and is MLflow's; MLflow itself would try for minutes.

    Returns:
        What it is, such as ``MLflow 3.17.0``.

    Raises:
        TrackingError: nothing answers, it turns this user away, or it is something else.
    """
    _check_answers(uri)
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    def ask(method: str, path: str, **content: Any) -> Any:
        credentials = get_default_host_creds(uri)
        try:
            return http_request(credentials, path, method, max_retries=0, timeout=30, **content)
        except MlflowException as error:
            raise TrackingError(uri, str(error).splitlines()[0][:300]) from error

    answer = ask("POST", "/api/2.0/mlflow/experiments/search", json={"max_results": 1})
    words = " ".join(answer.text.split())[:200]
    if answer.status_code in (401, 403):
        reason = f"the server refuses: HTTP {answer.status_code}, {words or 'without a word'}"
        raise TrackingError(uri, reason, _REFUSED_ADVICE)
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.status_code != 200 or not isinstance(found, dict) or "experiments" not in found:
        reason = f"this is no MLflow server: it answers HTTP {answer.status_code}, {words!r}"
        raise TrackingError(uri, reason, "Give the address that MLflow's own pages have")
    version = ask("GET", "/version")
    return f"MLflow {version.text}" if version.status_code == 200 else "MLflow"


def _check_answers(uri: str) -> None:
    """Make sure that anything answers at all.

    Raises:
        TrackingError: nothing does.
    """
    import urllib.error
    import urllib.request

    for attempt in range(1, 4):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
            return
        except urllib.error.HTTPError:  # it answers: what, is asked next
            return
        except OSError as error:
            if attempt == 3:
                reason = getattr(error, "reason", error)
                raise TrackingError(uri, f"no server answers ({reason})") from error
            time.sleep(attempt)
