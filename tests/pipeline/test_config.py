"""The configuration: presets, overrides, and every mistake at once."""

import pickle
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, load_config, preset_names
from pipeline.errors import ConfigMistakes
from stages.recipe import NetworkConfig

ROOTS = {"nyu": ["shard.nyu.root=/data"], "kitti": ["shard.kitti.root=/data"], "demo": []}
ROOTS["nyu_small"] = ROOTS["nyu"]


def mistakes(preset: str, *overrides: str) -> str:
    with pytest.raises(ConfigMistakes) as caught:
        load_config(preset, overrides)
    return str(caught.value)


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_loads_once_its_data_root_is_given(preset):
    assert load_config(preset, ROOTS[preset]).name == preset


@pytest.mark.parametrize("preset", ["nyu", "kitti", "nyu_small"])
def test_a_preset_without_its_data_root_says_what_to_set(preset):
    branch = preset.partition("_")[0]
    assert f"shard.{branch}: root is not set: give the folder" in mistakes(preset)


def test_the_papers_settings_are_the_preset_nyu():
    recipe = load_config("nyu", ROOTS["nyu"]).train["nyu"].recipe
    assert recipe.network.encoder == "densenet169"
    assert recipe.network.decoder_width == 1.0
    assert not recipe.network.conva_activation
    assert recipe.network.align_corners
    assert (recipe.optimiser.learning_rate, recipe.optimiser.schedule) == (1e-4, "constant")
    assert (recipe.optimiser.beta1, recipe.optimiser.beta2) == (0.9, 0.999)
    assert recipe.global_batch_size == 8
    assert recipe.input_size_px == (480, 640)
    assert (recipe.loss.l1_weight, recipe.loss.gradient_weight) == (0.1, 1.0)
    assert recipe.augment.channel_swap_probability == 0.25


def test_overrides_take_toml_values_and_plain_text():
    config = load_config(
        "demo", ["train.nyu.recipe.epochs=3", "shard.nyu.root=/some/folder", "store=/a=b"]
    )
    assert config.train["nyu"].recipe.epochs == 3
    assert config.shard["nyu"].root == "/some/folder"
    assert config.store == "/a=b"


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


def test_a_study_that_changes_a_setting_there_is_not_is_refused():
    text = mistakes("demo", 'ablate.nyu.studies.odd={set={"network.encodr"="x"}}')
    assert "a recipe has no setting 'network.encodr'" in text


def test_an_ablation_starts_from_the_training_recipe():
    config = load_config("demo", ["train.nyu.recipe.optimiser.learning_rate=0.123"])
    assert config.ablate["nyu"].recipe.optimiser.learning_rate == 0.123
    assert config.ablate["nyu"].recipe.epochs != config.train["nyu"].recipe.epochs


def test_the_run_id_depends_on_what_is_computed_and_not_on_which_ray_computes_it():
    base = load_config("demo").run_id()
    assert base == load_config("demo", ["session.num_cpus=8"]).run_id()
    assert base != load_config("demo", ["train.nyu.recipe.epochs=3"]).run_id()


def test_a_path_means_the_same_wherever_the_command_is_given(monkeypatch, tmp_path: Path):
    """Workers have other working directories, and results are found again by their settings."""
    (tmp_path / "below").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/test.txt").write_text("")
    (tmp_path / "data/raw/own").mkdir(parents=True)
    (tmp_path / "data/raw/own/train.txt").write_text("")

    def load(folder: str, up: str):
        monkeypatch.chdir(tmp_path / folder)
        return load_config(
            "kitti",
            [
                f"shard.kitti.root={up}data/raw",
                "shard.kitti.options.train_list=own/train.txt",  # found below the root
                f"shard.kitti.options.test_list={up}lists/test.txt",
                f"train.kitti.recipe.network.weights={up}encoder.pth",
                "ablate.kitti.studies={}",
                f"ablate.kitti.studies.other.set={{'network.weights' = '{up}other.pth'}}",
                f"store={up}store",
                f"tracking.uri=sqlite:///{up}mlflow.db",
            ],
        )

    one, other = load(".", ""), load("below", "../")
    assert one == other
    assert one.run_id() == other.run_id()
    shards, recipe = one.shard["kitti"], one.train["kitti"].recipe
    assert shards.root == str(tmp_path / "data/raw")
    assert shards.options["train_list"] == "own/train.txt"
    assert shards.options["test_list"] == str(tmp_path / "lists/test.txt")
    assert recipe.network.weights == str(tmp_path / "encoder.pth")
    assert one.ablate["kitti"].recipe.network.weights == str(tmp_path / "encoder.pth")
    study = one.ablate["kitti"].studies["other"].changes(recipe)
    assert study == {"network.weights": str(tmp_path / "other.pth")}
    assert one.store == str(tmp_path / "store")
    assert one.tracking.uri == one.register_.registry_uri == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("weights", ["imagenet", "none", "~/w.pth", "https://host/w.pth"])
def test_what_is_no_path_from_here_stays_as_it_is(weights: str):
    assert NetworkConfig(weights=weights).weights == weights


def test_a_users_own_file_is_a_preset(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[shard.mine]\nformat = "image_pairs"\nroot = "/x"\n')
    config = load_config(str(path))
    assert config.name == "mine"
    assert list(config.shard) == ["mine"]


def test_a_file_that_is_not_toml_is_named(tmp_path: Path):
    path = tmp_path / "bad.toml"
    path.write_text("[shard")
    assert "bad.toml: not TOML" in mistakes(str(path))


def test_mistakes_survive_pickling():
    with pytest.raises(ConfigMistakes) as caught:
        load_config("nope")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_configuration_is_frozen():
    config: PipelineConfig = load_config("demo")
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"


def test_outputs_go_where_the_environment_says(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    config = load_config("demo")
    assert config.store == str(tmp_path / "store")
    assert config.tracking.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert config.shard["nyu"].root == str(tmp_path / "raw/nyu_rooms")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.nyu.recipe.network.encoder=densenet196", "did you mean densenet169?"),
        ("shard.nyu.format=nyu_densdepth", "did you mean nyu_densedepth?"),
        ("train.nyu.num_workers=3", "global_batch_size = 8 cannot be cut"),
        ("store=gs://bucket/x", "gs://"),
        ("tracking.uri=foo://x", "tracking.uri = 'foo://x'"),
        ("evaluate.kitti.protocol=whole_image-zzz", "no such protocol"),
        ("train.nyu.use_gpu=maybe", "train.nyu.use_gpu = 'maybe'"),
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


def test_a_time_limit_holds_for_a_stage_a_kind_of_stages_or_a_pattern():
    limits = {"train.nyu": 1, "ablate": 2, "evaluate": 3, "register": 4, "*.kitti": 5, "*": 6}
    written = ", ".join(f'"{name}" = {limit_s}' for name, limit_s in limits.items())
    config = load_config("demo", [f"execution.time_limits_s={{{written}}}"])
    assert config.execution.time_limits_s == limits


def test_mistakes_in_one_table_do_not_hide_each_other():
    text = mistakes("nyu", "shard.nyu.bogus=1", "shard.nyu.min_depth_m=20")
    assert "shard.nyu.bogus = 1: no such key" in text
    assert "upside down" in text
    assert "root is not set" in text


@pytest.mark.parametrize(
    "protocol", ["nyu_eigen-flip", "whole_image-0.5-20m", "kitti_raw_lidar-median"]
)
def test_variants_of_protocols_are_known(protocol: str):
    from densedepth.protocols import get_protocol

    assert load_config("demo", [f"evaluate.nyu.protocol={protocol}"])
    assert get_protocol(protocol)


def test_names_for_checking_are_the_librarys_own():
    from densedepth.data.formats import FORMATS
    from densedepth.encoders import TORCHVISION_ENCODERS
    from densedepth.protocols import PROTOCOLS
    from stages import protocol_names, recipe, shard

    assert set(shard.FORMATS) == set(FORMATS)
    assert set(recipe.ENCODERS) == set(TORCHVISION_ENCODERS)
    assert set(protocol_names.PROTOCOL_NAMES) == set(PROTOCOLS)


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
            "did you mean network.encoder",
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
    assert "or: Input should be 'auto'" in text


@pytest.mark.parametrize("name", ["whole_image-0.5-20m-flip", "kitti_raw_lidar-median"])
def test_variants_of_protocols_are_taken(name):
    assert load_config("demo", [f"evaluate.nyu.protocol={name}"]).evaluate["nyu"].protocol == name


def test_a_data_sets_name_and_a_files_encoding_are_checked(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[shard."../x"]\nformat = "image_pairs"\nroot = "/x"\n')
    assert "letters, digits, _ and -" in mistakes(str(path))
    path.write_bytes(b"\xff\xfe")
    assert "mine.toml: not TOML" in mistakes(str(path))
