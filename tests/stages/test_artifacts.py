"""What artifacts say of themselves, and that they come back from JSON as they were."""

import pytest
from pydantic import TypeAdapter

from stages.artifacts import AblationTable, AnyArtifact, EpochRecord, Trial
from tests.stages.report_artifacts import make_ablation, make_checkpoint, make_evaluation


def test_a_diverged_trial_is_kept_as_it_was():
    record = EpochRecord(epoch=0, step=1, train_loss=float("nan"), metrics={}, seconds=1.0)
    assert "NaN" in record.model_dump_json()
    again = EpochRecord.model_validate_json(record.model_dump_json())
    assert again.train_loss != again.train_loss


def test_every_shown_figure_but_the_loss_says_how_it_was_averaged():
    metrics = {"loss": 0.3, "delta1": 0.7, "abs_rel": 0.2}
    record = EpochRecord(epoch=0, step=1, train_loss=0.4, metrics=metrics, seconds=1.0)
    shown = {"val_loss": 0.3, "val_per_image_delta1": 0.7, "val_per_image_abs_rel": 0.2}
    assert record.labelled() == shown
    summary = make_checkpoint(epochs=(record,), best_epoch=0).summary()
    assert {name: value for name, value in summary.items() if name.startswith("val_")} == shown
    assert all(name.endswith("_per_image_delta1") for name in make_ablation().summary())
    assert all(name.startswith("per_image_") for name in make_evaluation().summary())


def test_an_ablation_means_over_the_seeds_that_finished():
    def trial(seed: int, delta1: float | None) -> Trial:
        metrics = {} if delta1 is None else {"delta1": delta1}
        status = "failed" if delta1 is None else "finished"
        return Trial(study="baseline", seed=seed, changes={}, status=status, metrics=metrics)

    table = AblationTable(
        dataset="nyu", recipe={}, trials=(trial(0, 0.4), trial(1, 0.6), trial(2, None))
    )
    assert table.mean_metric("baseline", "delta1") == pytest.approx(0.5)
    assert TypeAdapter(AnyArtifact).validate_json(table.model_dump_json()) == table
