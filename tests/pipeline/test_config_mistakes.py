"""Mistakes in the configuration: all at once, each with what to do."""

import pickle
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigMistakes


def mistakes(preset: str, *overrides: str) -> str:
    with pytest.raises(ConfigMistakes) as caught:
        load_config(preset, overrides)
    return str(caught.value)


@pytest.mark.parametrize("preset", ["nyu", "kitti", "nyu_small"])
def test_a_preset_without_its_data_root_says_what_to_set(preset):
    branch = preset.partition("_")[0]
    assert f"shard.{branch}: root is not set: give the folder" in mistakes(preset)


def test_all_mistakes_come_at_once_each_with_key_value_reason_and_nearest_name():
    text = mistakes(
        "demo",
        "train.nyu.recipe.epocs=3",
        "train.nyu.recipe.global_batch_size=-1",
        "evaluate.kitti.protocol=kitti_eigen_grag",
        "trian.nyu.num_workers=2",
        "nonsense",
    )
    assert text.startswith("5 mistakes in the configuration:")
    assert "train.nyu.recipe.epocs = 3: no such key (did you mean epochs?)" in text
    assert "train.nyu.recipe.global_batch_size = -1: Input should be greater than" in text
    assert "evaluate.kitti.protocol" in text
    assert "did you mean kitti_eigen_garg?" in text
    assert "trian: no such key (did you mean train?)" in text
    assert "nonsense: an override has the form KEY=VALUE" in text


def test_an_unknown_preset_names_the_nearest():
    assert "nyu_smal: no such preset (did you mean nyu_small?)" in mistakes("nyu_smal")


def test_a_depth_range_upside_down_is_refused_with_both_values():
    text = mistakes("demo", "shard.nyu.min_depth_m=20")
    assert "upside down: min_depth_m = 20.0 is not below max_depth_m = 10.0" in text


def test_an_input_size_that_the_encoder_cannot_halve_is_refused_with_the_nearest():
    text = mistakes("demo", "train.nyu.recipe.input_size_px=[101, 128]")
    assert "must be even and at least 32" in text
    assert "[96, 128]" in text


def test_a_training_without_data_is_found_across_tables():
    text = mistakes("demo", "train.nyv.num_workers=2")
    assert "train.nyv: there is no [shard.nyv] that it could use (did you mean nyu?)" in text


def test_a_file_that_is_not_toml_is_named(tmp_path: Path):
    path = tmp_path / "bad.toml"
    path.write_text("[shard")
    assert "bad.toml: not TOML" in mistakes(str(path))


def test_mistakes_survive_pickling():
    with pytest.raises(ConfigMistakes) as caught:
        load_config("nope")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.nyu.recipe.network.encoder=densenet196", "did you mean densenet169?"),
        ("shard.nyu.format=nyu_densdepth", "did you mean nyu_densedepth?"),
        ("train.nyu.num_workers=9", "9 is more than recipe.global_batch_size = 8"),
        ("store=gs://bucket/x", "gs://"),
        ("tracking.uri=foo://x", "tracking.uri = 'foo://x'"),
        ("evaluate.kitti.protocol=whole_image-zzz", "no such protocol"),
        ('ablate.nyu.studies.odd={set={"network.encoder"="nope"}}', "no such encoder"),
    ],
)
def test_a_name_or_value_that_would_fail_later_is_refused_now(override: str, message: str):
    assert message in mistakes("demo", override)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ('{"trian.nyu" = 5}', "trian.nyu = 5: no stage is called 'trian.nyu' (did you mean train"),
        ('{"train.office" = 5}', "no stage is called 'train.office'"),
        ('{"*.office" = 5}', "no stage is called '*.office'"),
        ('{"?" = 5}', "no stage is called '?' (valid: shard.nyu, "),
    ],
)
def test_a_time_limit_that_holds_for_no_stage_is_refused(limits: str, told: str):
    text = mistakes("demo", f"execution.time_limits_s={limits}")
    assert text.startswith("1 mistake in the configuration:\n  execution.time_limits_s."), text
    assert told in text


def test_mistakes_in_one_table_do_not_hide_each_other():
    text = mistakes("nyu", "shard.nyu.bogus=1", "shard.nyu.min_depth_m=20")
    assert "shard.nyu.bogus = 1: no such key" in text
    assert "upside down" in text
    assert "root is not set" in text


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("evaluate.nyu.protocol=nyu_densedepth-10-1m", "only whole_image has limits"),
        ("evaluate.nyu.protocol=whole_image-10-1m", "near before far"),
        ("evaluate.nyu.protocol=nyu_densedepth---", "'nyu_densedepth---'"),
        ("register.metric=dleta1", "Input should be 'delta1', 'delta2' or 'delta3'"),
        ("train.nyu.recipe.optimiser.learning_rate=inf", "finite number"),
        ("shard.nyu.synthetic.size_px=[0, 50]", "greater than or equal to 16"),
        ("tracking.uri=foo", "give sqlite:///FILE, http://SERVER or https://SERVER"),
        ('ablate.nyu.studies.bad.scale={"network.encoder"=2}', "is no number that could be scaled"),
        (
            'ablate.nyu.studies.bad.set={"network.decoder_width"=7}',
            "study 'bad': network.decoder_width = 7",
        ),
        (
            'ablate.nyu.studies.bad.set={"network.encodr"="x"}',
            "a recipe has no setting 'network.encodr'; did you mean network.encoder",
        ),
    ],
)
def test_a_value_that_would_fail_late_is_refused_at_once(override, told):
    text = mistakes("demo", override)
    assert text.startswith("1 mistake in the configuration:"), text
    assert override.partition("=")[0].partition(".bad")[0] in text
    assert told in text


@pytest.mark.parametrize("key", ["store", "tracking.uri"])
def test_a_url_that_is_refused_is_told_without_its_password(key: str):
    text = mistakes("demo", f"{key}=foo://me:secret@host/x")
    assert f"{key} = 'foo://***@host/x': " in text
    assert "secret" not in text


def test_what_no_branch_of_a_setting_takes_is_one_mistake():
    text = mistakes("demo", "train.nyu.use_gpu=maybe")
    assert text.startswith("1 mistake in the configuration:"), text
    assert "train.nyu.use_gpu = 'maybe': Input should be a valid boolean" in text
    assert "or: Input should be 'auto'" in text


def test_a_data_sets_name_and_a_files_encoding_are_checked(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[shard."../x"]\nformat = "image_pairs"\nroot = "/x"\n')
    assert "letters, digits, _ and -" in mistakes(str(path))
    path.write_bytes(b"\xff\xfe")
    assert "mine.toml: not TOML" in mistakes(str(path))
