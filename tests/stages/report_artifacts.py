"""Artifacts made by hand, as the stages before the report would hand them on."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from cluster.local_store import LocalStore
from cluster.monitor import MonitorHandle
from cluster.services import Services
from cluster.storage import ObjectRef, ObjectStore
from stages.artifacts import (
    AblationTable,
    Checkpoint,
    EpochRecord,
    EvalReport,
    Picture,
    ShardSet,
    ShardSplit,
    SkippedFrame,
    Trial,
)
from stages.recipe import Recipe
from stages.study import changed_recipe

PER_IMAGE = {
    "abs_rel": 0.1181,
    "sq_rel": 0.0812,
    "rmse": 0.5123,
    "rmse_log": 0.1654,
    "log10": 0.0505,
    "silog": 14.3106,
    "delta1": 0.8127,
    "delta2": 0.9348,
    "delta3": 0.9769,
}
CONSTANT = {name: value * (0.52 if "delta" in name else 3.1) for name, value in PER_IMAGE.items()}
RECIPE = changed_recipe(Recipe(), {"network.encoder": "mobilenet_v2", "epochs": 4})


@dataclass
class Recorder:
    """Stands where the monitor's actor is; keeps what it is told."""

    files: dict[str, bytes] = field(default_factory=dict)
    progress_calls: list[tuple[float, float]] = field(default_factory=list)

    def progress(self, stage: str, done: float, total: float, unit: str, text: str) -> None:
        self.progress_calls.append((done, total))

    def track(self, method: str, *args: Any) -> None:
        assert method == "log_bytes"
        _, path, data = args
        self.files[path] = data


def make_services(folder: Path) -> tuple[Services, Recorder]:
    recorder = Recorder()
    store = LocalStore(folder / "store")
    key = "demo-1a2b3c4d/report/0123456789ab"
    handle = MonitorHandle(recorder, remote=False)
    return Services(store, handle, "report", key, "mlflow-run", folder), recorder


def make_ref(key: str, digit: str = "a") -> ObjectRef:
    return ObjectRef(key=key, size_bytes=1_500_000, sha256=digit * 64)


def make_shards(**changes: Any) -> ShardSet:
    splits = {
        name: ShardSplit(
            manifest=make_ref(f"{name}/manifest.json", digit),
            shards=(make_ref(f"{name}/000.tar"), make_ref(f"{name}/001.tar")),
            indexes=(make_ref(f"{name}/000.json"), make_ref(f"{name}/001.json")),
            num_samples_per_shard=counts,
        )
        for name, counts, digit in (
            ("train", (256, 231), "1"),
            ("val", (40, 23), "2"),
            ("test", (64, 31), "3"),
        )
    }
    skipped = (SkippedFrame(split="train", frame="a/0007", reason="the JPEG is cut off"),)
    return ShardSet(
        **{
            "dataset": "nyu",
            "min_depth_m": 0.1,
            "max_depth_m": 10.0,
            "rendered": False,
            "ground_truth": "nyu_depths",
            "dense": True,
            "measured_m": (0.71, 2.43, 9.2),
            "splits": splits,
            "skipped": skipped,
            **changes,
        }
    )


def make_checkpoint(**changes: Any) -> Checkpoint:
    epochs = tuple(
        EpochRecord(
            epoch=i,
            step=60 * (i + 1),
            train_loss=train_loss,
            metrics={"loss": val_loss, "delta1": delta1},
            seconds=12.5,
        )
        for i, (train_loss, val_loss, delta1) in enumerate(
            [(0.4, 0.42, 0.3), (0.3, 0.33, 0.5), (0.25, 0.29, 0.71), (0.22, 0.31, 0.7)]
        )
    )
    return Checkpoint(
        **{
            "dataset": "nyu",
            "network": make_ref("networks/nyu"),
            "recipe": RECIPE.model_dump(mode="json"),
            "best_epoch": 2,
            "epochs": epochs,
            "num_parameters": 3_456_789,
            "train_seconds": 254.0,
            "num_workers": 2,
            **changes,
        }
    )


def make_evaluation(**changes: Any) -> EvalReport:
    return EvalReport(
        **{
            "dataset": "nyu",
            "split": "test",
            "protocol": {"name": "nyu_densedepth"},
            "protocol_text": "95 of 654 official images; nyu_densedepth: no crop.",
            "num_images": 95,
            "num_skipped": 0,
            "per_image_mean": PER_IMAGE,
            "pooled": {name: value * 1.07 for name, value in PER_IMAGE.items()},
            "constant_baseline": CONSTANT,
            "intervals": {n: (v * 0.96, v * 1.02) for n, v in PER_IMAGE.items()},
            "by_depth": (
                {"lower_m": 0.0, "upper_m": 2.0, "num_pixels": 750.0, **PER_IMAGE},
                {"lower_m": 2.0, "upper_m": 10.0, "num_pixels": 250.0, **CONSTANT},
                {"lower_m": 10.0, "upper_m": 20.0, "num_pixels": 0.0},
            ),
            "pictures": (),
            "seconds_per_image": 0.0843,
            **changes,
        }
    )


def make_trial(study: str, seed: int, delta1: float, **changes: Any) -> Trial:
    return Trial(
        **{
            "study": study,
            "seed": seed,
            "changes": {} if study == "baseline" else {"network.decoder_width": 0.5},
            "status": "finished",
            "metrics": {"loss": 1 - delta1, "delta1": delta1, "abs_rel": 0.3, "rmse": 1.25},
            "curve": (0.9, 0.6, 1 - delta1),
            "num_parameters": 3_456_789,
            "seconds": 31.5,
            **changes,
        }
    )


def make_failed_trial(study: str, seed: int, reason: str) -> Trial:
    return Trial(study=study, seed=seed, changes={}, status="failed", reason=reason)


def make_ablation(*trials: Trial) -> AblationTable:
    some = (make_trial("half_decoder", 0, 0.55), make_trial("baseline", 0, 0.61))
    recipe = changed_recipe(RECIPE, {"epochs": 3}).model_dump(mode="json")
    return AblationTable(dataset="nyu", recipe=recipe, trials=trials or some)


def make_picture(store: ObjectStore, name: str, caption: str, form: str = "PNG") -> Picture:
    out = io.BytesIO()
    Image.new("RGB", (8, 3), (200, 30, len(name))).save(out, form)
    return Picture(image=store.put_bytes(f"pictures/{name}", out.getvalue()), caption=caption)
