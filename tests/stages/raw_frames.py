"""A tiny raw data set in DenseDepth's layout."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_pair(root: Path, folder: str, number: int, depth_size=(24, 32)) -> str:
    """Write a colour and a depth picture in DenseDepth's layout; return the list's line."""
    rng = np.random.default_rng(number)
    place = root / "data" / folder / "room_0001_out"
    place.mkdir(parents=True, exist_ok=True)
    colour = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    depth = rng.integers(20, 250, depth_size, dtype=np.uint8)
    Image.fromarray(colour).save(place / f"{number}.jpg", quality=95)
    Image.fromarray(depth).save(place / f"{number}.png")
    base = f"data/{folder}/room_0001_out/{number}"
    return f"{base}.jpg,{base}.png\n"


def write_data_set(root: Path, num_train: int = 8, num_test: int = 2) -> Path:
    """Write training and test frames with their lists."""
    train = "".join(write_pair(root, "nyu2_train", n) for n in range(1, num_train + 1))
    test = "".join(write_pair(root, "nyu2_test", n) for n in range(1, num_test + 1))
    (root / "data/nyu2_train.csv").write_text(train)
    (root / "data/nyu2_test.csv").write_text(test)
    return root
