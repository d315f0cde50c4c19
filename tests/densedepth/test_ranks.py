"""Three ranks by gloo: parts of unequal size count alike, and a restart changes no bit."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from densedepth.data.batch import Batch
from densedepth.data.order import rank_slice
from densedepth.learner import FIGURES, Learner
from densedepth.ranks import ddp_options
from densedepth.validation import Validation, ValidationSplit, validate
from tests.densedepth.small_training import (
    afraid_of_white,
    batch,
    make_learner,
    split_of,
    spoilt,
    train,
)

NUM_RANKS, NUM_STEPS, BATCH = 3, 6, 4
CHANGES = {"global_batch_size": BATCH, "ema_decay": 0.9}


def part_of(whole: Batch, rank: int) -> Batch:
    part = rank_slice(len(whole.keys), rank, NUM_RANKS)
    tensors = ("image", "depth_m", "valid", "sample_seeds")
    cut = {name: getattr(whole, name)[part] for name in tensors}
    return dataclasses.replace(whole, keys=whole.keys[part], **cut)


def validation_of(rank: int) -> ValidationSplit:
    """Three rounds of unequal parts; in the last one the first rank has none."""
    mine = [batch(90 + rank, 1 + rank), batch(70 + rank, 2), batch(80 + rank, 1)]
    return split_of(mine[: 3 if rank else 2], num_rounds=3)


def interrupted(learner: Learner) -> dict[str, float]:
    """Validate, the rest of it by a learner that goes on with what was saved after a round."""
    rank, state = dist.get_rank(), {}
    first = Validation(learner, validation_of(rank))
    for num_done in first.rounds():
        first.note(num_done)
        state = copy.deepcopy(learner.state())
    second = make_learner(**CHANGES)
    second.load_state(state)
    assert second.progress.validated == 2
    return validate(second, validation_of(rank))


def bits(learner) -> list[torch.Tensor]:
    return [value.clone() for value in learner.best_network.state_dict().values()]


def work(rank: int, folder: str) -> None:
    """What one rank does: writes what came out of it."""
    torch.set_num_threads(1)
    address = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=NUM_RANKS)

    def make(**changes):
        learner = afraid_of_white(**CHANGES, **changes)
        options = ddp_options(learner.device, NUM_RANKS)
        learner.forward = nn.parallel.DistributedDataParallel(learner.network, **options)
        return learner

    def feed(epoch: int, next_sample: int = 0) -> list[Batch]:
        first = next_sample // BATCH
        return [part_of(batch(i, BATCH), rank) for i in range(first, NUM_STEPS)]

    found = {}
    parts = [part_of(whole, rank) for whole in (spoilt(2, BATCH), batch(1, BATCH))]
    for micro_batch_size in (None, 1):
        learner = make(freeze_encoder_norm=True, micro_batch_size=micro_batch_size)
        told = train(learner, 1, lambda epoch, sample: parts, val=(90 + rank,))
        gradient = torch.cat([p.grad.flatten() for p in learner.network.parameters()])
        found[f"gradient {micro_batch_size}"] = gradient, told["steps"][0].metrics
        found[f"skipped {micro_batch_size}"] = [(s.step, s.keys) for s in told["skipped"]]
    drawing = make_learner("efficientnet_b0", learning_rate=0.0)  # which drops layers at random
    found["drawn"] = [float(drawing.train_step(batch(1)).figures[0]) for _ in range(2)]
    whole = make()
    told = train(whole, 1, feed, val=(90 + rank,))
    found["whole"] = bits(whole), [e.train_loss for e in told["epochs"]]
    first, second = make(), make()
    (state,) = train(first, 1, feed, save_at={2}, stop=True, val=(90 + rank,))["states"]
    second.load_state(copy.deepcopy(state))
    told = train(second, 1, feed, val=(90 + rank,))
    found["resumed"] = bits(second), [e.train_loss for e in told["epochs"]]
    found["validated"] = validate(whole, validation_of(rank))
    found["interrupted"] = interrupted(whole)
    torch.save(found, f"{folder}/rank-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        torch.multiprocessing.spawn(work, (str(folder),), nprocs=NUM_RANKS)
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(NUM_RANKS)]


@pytest.mark.parametrize("micro_batch_size", [None, 1])
def test_unequal_parts_give_the_gradient_of_one_rank(found, micro_batch_size):
    """Of four frames one rank has two; batch norms apart, whose statistics are frozen here."""
    alone = make_learner(**CHANGES, freeze_encoder_norm=True)
    expected = alone.train_step(batch(1, BATCH)).figures
    gradient = torch.cat([p.grad.flatten() for p in alone.network.parameters()])
    for rank in found:
        ours, _ = rank[f"gradient {micro_batch_size}"]
        assert torch.linalg.vector_norm(ours - gradient) < 1e-4 * torch.linalg.vector_norm(gradient)
        told = [rank[f"gradient {micro_batch_size}"][1][name] for name in FIGURES[:-1]]
        assert told == pytest.approx(expected[:-1].tolist(), rel=1e-4)


@pytest.mark.parametrize("micro_batch_size", [None, 1])
def test_every_rank_skips_a_step_that_one_of_them_cannot_do_and_names_its_sample(
    found, micro_batch_size
):
    assert [rank[f"skipped {micro_batch_size}"] for rank in found] == [[(0, ("s2-1",))]] * NUM_RANKS


def test_every_rank_and_every_step_draws_anew(found):
    """By the losses of one network, which learns nothing, on one batch."""
    assert len({loss for rank in found for loss in rank["drawn"]}) == 2 * NUM_RANKS


def test_a_restart_in_the_middle_changes_no_bit(found):
    """Of what rank 0 keeps; the others' running statistics are lost with them, and used nowhere."""
    (ours, _), (expected, _) = found[0]["resumed"], found[0]["whole"]
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    losses = [rank[name][1] for rank in found for name in ("whole", "resumed")]
    assert losses == [losses[0]] * len(losses)


def test_all_ranks_validate_rank_0s_network_on_the_frames_of_all(found):
    assert found[0]["validated"] == found[1]["validated"] == found[2]["validated"]
    assert all(rank["interrupted"] == rank["validated"] for rank in found)
    learner = make_learner(**CHANGES)
    weights = zip(learner.ema.state_dict().items(), found[0]["whole"][0], strict=True)
    learner.ema.load_state_dict({name: value for (name, _), value in weights})
    batches = [b for rank in range(NUM_RANKS) for b in validation_of(rank).batches(0)]
    expected = validate(learner, split_of(batches))
    assert found[0]["validated"] == pytest.approx(expected, rel=1e-5)
