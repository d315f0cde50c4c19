"""The configuration: presets, overrides, and what they mean."""

from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, load_config, preset_names
from stages.recipe import NetworkConfig

ROOTS = {"nyu": ["shard.nyu.root=/data"], "kitti": ["shard.kitti.root=/data"], "demo": []}
ROOTS["nyu_small"] = ROOTS["nyu"]


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_loads_once_its_data_root_is_given(preset):
    assert load_config(preset, ROOTS[preset]).name == preset


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


def test_a_users_own_file_is_a_preset(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[shard.mine]\nformat = "image_pairs"\nroot = "/x"\n')
    config = load_config(str(path))
    assert config.name == "mine"
    assert list(config.shard) == ["mine"]


def test_outputs_go_where_the_environment_says(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEPTH_OUTPUTS", str(tmp_path))
    config = load_config("demo")
    assert config.store == str(tmp_path / "store")
    assert config.tracking.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert config.shard["nyu"].root == str(tmp_path / "raw/nyu_rooms")


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


def test_an_ablation_starts_from_the_training_recipe():
    config = load_config("demo", ["train.nyu.recipe.optimiser.learning_rate=0.123"])
    assert config.ablate["nyu"].recipe.optimiser.learning_rate == 0.123
    assert config.ablate["nyu"].recipe.epochs != config.train["nyu"].recipe.epochs


def test_the_run_id_depends_on_what_is_computed_and_not_on_which_ray_computes_it():
    base = load_config("demo").run_id()
    assert base == load_config("demo", ["session.num_cpus=8"]).run_id()
    assert base != load_config("demo", ["train.nyu.recipe.epochs=3"]).run_id()


def test_the_configuration_is_frozen():
    config: PipelineConfig = load_config("demo")
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"


def test_a_time_limit_holds_for_a_stage_a_kind_of_stages_or_a_pattern():
    limits = {"train.nyu": 1, "ablate": 2, "evaluate": 3, "register": 4, "*.kitti": 5, "*": 6}
    written = ", ".join(f'"{name}" = {limit_s}' for name, limit_s in limits.items())
    config = load_config("demo", [f"execution.time_limits_s={{{written}}}"])
    assert config.execution.time_limits_s == limits


@pytest.mark.parametrize(
    "protocol",
    [
        "nyu_eigen-flip",
        "whole_image-0.5-20m",
        "whole_image-0.5-20m-flip",
        "kitti_raw_lidar-median",
    ],
)
def test_variants_of_protocols_are_known(protocol: str):
    from densedepth.protocols import get_protocol

    config = load_config("demo", [f"evaluate.nyu.protocol={protocol}"])
    assert config.evaluate["nyu"].protocol == protocol == get_protocol(protocol).name


def test_names_for_checking_are_the_librarys_own():
    from densedepth.data.formats import FORMATS
    from densedepth.encoders import TORCHVISION_ENCODERS
    from densedepth.protocols import PROTOCOLS
    from stages import protocol_names, recipe, shard

    assert set(shard.FORMATS) == set(FORMATS)
    assert set(recipe.ENCODERS) == set(TORCHVISION_ENCODERS)
    assert set(protocol_names.PROTOCOL_NAMES) == set(PROTOCOLS)
