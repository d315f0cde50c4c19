import pickle

import pytest

from densedepth.data.formats import FORMATS, make_reader
from densedepth.data.kitti import KittiEigen
from densedepth.data.pairs import ImagePairs
from densedepth.errors import DataError


def test_a_reader_is_made_by_the_name_of_its_format(tmp_path):
    reader = make_reader("kitti_eigen", str(tmp_path), ground_truth="velodyne", seed=3)
    assert reader == KittiEigen(str(tmp_path), ground_truth="velodyne", seed=3)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_every_reader_is_a_small_picklable_value(format, tmp_path):
    options = {"image_glob": "*.jpg", "depth_glob": "*.png", "depth_unit_m": 0.001}
    reader = make_reader(format, tmp_path, **(options if format == "image_pairs" else {}))
    packed = pickle.dumps(reader)
    assert pickle.loads(packed) == reader
    assert len(packed) < 2000
    assert hash(reader) == hash(pickle.loads(packed))


def test_lists_from_a_config_file_become_tuples(tmp_path):
    reader = make_reader(
        "image_pairs", tmp_path, image_glob="*.jpg", depth_glob="*.png", depth_unit_m=0.001,
        invalid_values=[65535],
    )  # fmt: skip
    assert isinstance(reader, ImagePairs)
    assert reader.invalid_values == (65535,)


def test_an_unknown_format_is_told_the_nearest(tmp_path):
    with pytest.raises(DataError, match=r"'nyu_densdepth' does not exist; did you mean 'nyu_dense"):
        make_reader("nyu_densdepth", tmp_path)
    with pytest.raises(DataError, match=r"'xyz' does not exist; there are nyu_densedepth, nyu_la"):
        make_reader("xyz", tmp_path)


def test_all_wrong_options_are_told_at_once(tmp_path):
    with pytest.raises(DataError) as caught:
        make_reader("image_pairs", tmp_path, image_glop="*.jpg", depth_glob="*.png", root_dir="x")
    message = str(caught.value)
    assert "option 'image_glop' does not exist; did you mean 'image_glob'" in message
    assert "option 'root_dir' does not exist" in message
    assert "option 'image_glob' must be given" in message
    assert "option 'depth_unit_m' must be given" in message
