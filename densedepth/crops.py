"""The boxes that evaluation protocols score, as pure functions of a map's size.

A box is (top, bottom, left, right) in pixels, half-open: rows top..bottom-1, columns
left..right-1.
"""

from typing import Literal

Box = tuple[int, int, int, int]
CropKind = Literal["none", "nyu_densedepth", "nyu_eigen", "garg", "kitti_eigen"]

KB_HEIGHT, KB_WIDTH = 352, 1216

_NYU_HEIGHT, _NYU_WIDTH = 480, 640
# DenseDepth stores its box inclusively, as [20, 459, 24, 615].
_NYU_BOXES: dict[str, Box] = {
    "nyu_densedepth": (20, 460, 24, 616),
    "nyu_eigen": (45, 471, 41, 601),
}
# Shares of height and width, from Monodepth's evaluation of KITTI.
_KITTI_SHARES: dict[str, tuple[float, float, float, float]] = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "kitti_eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}


def crop_box(kind: CropKind, height: int, width: int) -> Box:
    """Give the box that a crop keeps of a map.

    NYU's boxes are defined for 480x640 and scale in proportion for other sizes, each side
    rounded down. KITTI's are shares of the size, cut to whole numbers.

    Raises:
        ValueError: nothing of a map this small remains.
    """
    if kind == "none":
        return 0, height, 0, width
    if kind in _NYU_BOXES:
        top, bottom, left, right = _NYU_BOXES[kind]
        box = (
            top * height // _NYU_HEIGHT,
            bottom * height // _NYU_HEIGHT,
            left * width // _NYU_WIDTH,
            right * width // _NYU_WIDTH,
        )
    else:
        top_share, bottom_share, left_share, right_share = _KITTI_SHARES[kind]
        box = (
            int(top_share * height),
            int(bottom_share * height),
            int(left_share * width),
            int(right_share * width),
        )
    if box[0] >= box[1] or box[2] >= box[3]:
        raise ValueError(
            f"the {kind} crop of a {height}x{width} map is empty; score it under whole_image"
        )
    return box


def kb_box(height: int, width: int) -> Box:
    """Give the 352x1216 box of the KITTI depth benchmark: at the bottom, in the middle.

    Raises:
        ValueError: the map is smaller than the box.
    """
    if height < KB_HEIGHT or width < KB_WIDTH:
        raise ValueError(
            f"the {KB_HEIGHT}x{KB_WIDTH} KITTI benchmark crop does not fit a {height}x{width} map; "
            "use kitti_eigen_garg, whose box is a share of any map, or whole_image"
        )
    top, left = height - KB_HEIGHT, (width - KB_WIDTH) // 2
    return top, height, left, left + KB_WIDTH
