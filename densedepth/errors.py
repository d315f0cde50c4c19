"""The errors of the library, as a tree.

::

    DepthError
    ├── DataError             the user's data is not what the layout promises
    │   ├── MissingDataError  a root, list or file is not there
    │   ├── EmptySplitError   a split has no frame
    │   └── BadFrameError     one frame cannot be used (file, reason)
    ├── CorruptShardError     bytes in a shard are not what its manifest promises
    ├── NonFiniteError        too many steps gave no number
    ├── OutOfMemoryError      a batch does not fit
    ├── CudaGraphError        a network's passes cannot be CUDA graphs
    └── WeightsError          pretrained weights cannot be loaded

Every one takes plain positional arguments and therefore survives pickling: Ray carries
exceptions between processes.
"""


class DepthError(Exception):
    """Base of everything that densedepth raises on purpose."""


class DataError(DepthError, ValueError):
    """The user's data is not what its layout promises."""


class MissingDataError(DataError):
    """A root folder, list or file is not there."""


class EmptySplitError(DataError):
    """A split has no frame."""


class BadFrameError(DataError):
    """One frame cannot be used; the data set goes on without it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class CorruptShardError(DepthError):
    """Bytes in a shard are not what its manifest promises."""


class NonFiniteError(DepthError):
    """The loss or its gradient was no finite number in too many steps."""


class OutOfMemoryError(DepthError):
    """A batch does not fit into memory; the message says how many images would."""


class CudaGraphError(DepthError):
    """A network's passes could not be captured as CUDA graphs; the message says what to set."""


class WeightsError(DepthError, ValueError):
    """Pretrained weights cannot be loaded; the message says what to set."""
