"""What a network file says about itself.

A network file is a safetensors file whose header has one entry, ``densedepth``: JSON with the
format's version, the arguments that rebuild the network, the depth range in metres, and extra
facts. One entry, because safetensors writes several in no fixed order, and the same network should
give the same bytes.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from densedepth.errors import WeightsError

ENTRY = "densedepth"
VERSION = 1
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class NetworkHeader:
    """The facts in a network file's header.

    Attributes:
        settings: ``DenseDepth(**settings)`` builds the network.
        min_m: nearest depth of its range, metres.
        max_m: farthest depth of its range, metres.
        extra: JSON-ready facts of whoever saved it.
    """

    settings: dict[str, Any]
    min_m: float
    max_m: float
    extra: dict[str, Any] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """Give the metadata of the safetensors file; always the same for the same facts.

        Raises:
            TypeError: ``extra`` holds what JSON cannot.
            ValueError: ``extra`` holds NaN or infinity, which JSON cannot.
        """
        entry = {
            "version": VERSION,
            "settings": self.settings,
            "depth_range_m": [self.min_m, self.max_m],
            "extra": self.extra,
        }
        return {ENTRY: json.dumps(entry, sort_keys=True, allow_nan=False)}


def parse_network_header(content: bytes, name: str) -> NetworkHeader:
    """Read the header at the beginning of a network file's bytes.

    Args:
        content: the file's bytes.
        name: what an error calls the file.

    Raises:
        WeightsError: these are not the bytes of a network file of this project.
    """
    size_bytes = int.from_bytes(content[:_LENGTH_BYTES], "little")
    try:
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + size_bytes])
        entry = json.loads(header["__metadata__"][ENTRY])
        if entry["version"] != VERSION:
            raise WeightsError(
                f"{name} is a network file of version {entry['version']}, and this program reads "
                f"version {VERSION}: use the program that wrote it"
            )
        min_m, max_m = entry["depth_range_m"]
        return NetworkHeader(entry["settings"], min_m, max_m, entry["extra"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{name} is no network file of this project (safetensors with the entry {ENTRY!r}): "
            "give a file written by save_network; the encoder's weights alone go through "
            "load_encoder_weights"
        ) from error
