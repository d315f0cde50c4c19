import pytest

from densedepth.data.kitti_list import KittiLine, parse_kitti_line

DRIVE = "2011_09_26_drive_0002_sync"
DEPTH = f"{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png"
LEFT = KittiLine("2011_09_26", DRIVE, 2, 69, DEPTH, 721.5377)
PICTURE = f"2011_09_26/{DRIVE}/image_02/data/0000000069"


@pytest.mark.parametrize(
    "line",
    [
        f"{PICTURE}.png {DEPTH} 721.5377",
        f"/{PICTURE}.png /{DEPTH} 721.5377\n",
        f"{PICTURE}.jpg train/{DEPTH} 721.5377",
    ],
)
def test_bts_lines_are_read_with_and_without_leading_slashes(line):
    assert parse_kitti_line(line) == LEFT


def test_none_means_that_kitti_has_no_annotated_depth():
    line = parse_kitti_line(f"{PICTURE}.png None 721.5377")
    assert line.annotated is None
    assert line.focal_px == 721.5377


@pytest.mark.parametrize("number", ["69", "0000000069"])
@pytest.mark.parametrize(("side", "camera"), [("l", 2), ("r", 3)])
def test_monodepth2_lines_are_read_padded_or_not_for_both_cameras(number, side, camera):
    line = parse_kitti_line(f"2011_09_26/{DRIVE} {number} {side}")
    assert (line.frame, line.camera, line.focal_px) == (69, camera, None)
    assert line.annotated == DEPTH.replace("image_02", f"image_{camera:02d}")
    assert line.picture == PICTURE.replace("image_02", f"image_{camera:02d}")
    assert line.scan == f"2011_09_26/{DRIVE}/velodyne_points/data/0000000069.bin"
    assert line.name == f"{DRIVE}_{camera:02d}_0000000069"


@pytest.mark.parametrize(
    "line",
    ["", "a b", f"2011_09_26/{DRIVE} 69 x", f"{DRIVE} 69 l", f"{PICTURE}.png", f"{PICTURE} a b"],
)
def test_other_lines_are_refused(line):
    with pytest.raises(ValueError, match="neither 'picture depth focal' nor"):
        parse_kitti_line(line)


@pytest.mark.samples
def test_every_line_of_the_official_lists_is_read(samples_root):
    def read(name):
        lines = (samples_root / "splits" / name).read_text().splitlines()
        return [parse_kitti_line(line) for line in lines]

    bts_test = read("eigen_test_files_with_gt.txt")
    mono_test = read("monodepth2_eigen_test_files.txt")
    benchmark = read("monodepth2_eigen_benchmark_test_files.txt")
    assert (len(bts_test), len(mono_test), len(benchmark)) == (697, 697, 652)
    assert {line.name for line in bts_test} == {line.name for line in mono_test}
    with_depth = {line.name for line in bts_test if line.annotated}
    assert with_depth == {line.name for line in benchmark}
    train = read("eigen_train_files_with_gt.txt")
    assert len(train) == 23158
    assert all(line.annotated and line.focal_px for line in train)
    assert {line.drive for line in train}.isdisjoint(line.drive for line in bts_test)
