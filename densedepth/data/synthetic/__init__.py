"""Synthetic scenes: raw data sets in the official layouts, rendered by ray casting.

Rooms for NYU, streets for KITTI. They are read by the same readers as the real data, and any
frame is a function of (seed, split, scene, frame) alone.
"""

from densedepth.data.synthetic.drives import StreetFrame, street_frame
from densedepth.data.synthetic.kitti_like import write_kitti_like
from densedepth.data.synthetic.nyu_like import write_nyu_like
from densedepth.data.synthetic.rooms import room_frame

__all__ = ["StreetFrame", "room_frame", "street_frame", "write_kitti_like", "write_nyu_like"]
