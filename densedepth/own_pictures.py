"""A user's own picture: read as people see it; its depth written as metres and in colour."""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from densedepth.errors import BadFrameError, MissingDataError
from densedepth.pictures import depth_view, to_png
from densedepth.whole_file import write_whole

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Endings of the pictures that a folder is searched for."""
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def find_pictures(path: Path) -> list[Path]:
    """Return the picture, or those that lie in a folder, by name.

    Raises:
        MissingDataError: there is nothing at the path, or no picture in the folder.
    """
    if not path.is_dir():
        if not path.exists():
            raise MissingDataError(f"no picture at {path}: correct the path")
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise MissingDataError(
            f"no picture in {path}: give a folder with {', '.join(SUFFIXES)}; folders in it are "
            "not searched"
        )
    return found


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read a picture as people see it: a camera's turn mark (EXIF) is applied.

    Networks are trained on upright pictures, and a phone's lies on its side without the mark.

    Raises:
        BadFrameError: the file is no picture of 8 bits a colour, damaged, or may not be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if opened.mode.startswith(("I", "F")):
                    reason = f"{opened.mode} pixels have no 8 bits a colour: a depth map?"
                    raise BadFrameError(str(path), reason)
                return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except BadFrameError:
        raise
    except (*_PILLOW_ERRORS, Image.DecompressionBombWarning) as error:
        raise BadFrameError(str(path), f"no picture that can be read: {error}") from error


def write_depth(
    depth_m: Float32[np.ndarray, "h w"], picture: UInt8[np.ndarray, "h w 3"], start: Path
) -> tuple[Path, Path]:
    """Write estimated depth as ``START.npy``, float32 metres, and ``START.depth.png``, to look at.

    Args:
        depth_m: metres, at the picture's size.
        picture: the colour picture.
        start: the files' name without ending; its folder is made.

    Raises:
        OSError: a file cannot be written; the one that may have been there stays.
    """
    start.parent.mkdir(parents=True, exist_ok=True)
    metres, view = start.with_name(f"{start.name}.npy"), start.with_name(f"{start.name}.depth.png")
    array = io.BytesIO()  # np.save into a file hides why a write fell short
    np.save(array, depth_m)
    write_whole(metres, array.getvalue())
    write_whole(view, to_png(depth_view(picture, depth_m)))
    return metres, view
