import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from small_pretrain import batch, clips, image_autoencoder, pictures, video_autoencoder
from tiny_pretraining import held_out, pretrain_both, run
from tiny_training import ENVIRONMENT, without_clock
from torch import Tensor

from pipeline.feed.order import Rank
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.masks import with_masks
from pipeline.pretrain.task import PretrainTask
from pipeline.store.batch import Batch
from pipeline.training.history import Epoch

BOTH = pytest.mark.parametrize(
    ("build", "inputs"), [(video_autoencoder, clips), (image_autoencoder, pictures)]
)
Build = Callable[[], MaskedAutoencoder]
Inputs = Callable[[int], Tensor]


def one_device() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def masked(model: MaskedAutoencoder, inputs: Tensor) -> Batch:
    return with_masks(batch(inputs), model.masking, seed=1, epoch=1)


def step(model: MaskedAutoencoder, parts: list[Batch]) -> tuple[float, list[Tensor]]:
    """The loss of a batch in parts, and its gradients."""
    task = PretrainTask([])
    totals = torch.stack([task.totals(model, part) for part in parts]).sum(0)
    losses = [task.losses(model, part, totals)[0] for part in parts]
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = torch.stack(losses).sum()
    return loss.item(), list(torch.autograd.grad(loss, parameters))


@BOTH
def test_two_micro_batches_add_up_to_one_batch(build: Build, inputs: Inputs) -> None:
    model = build()
    whole = masked(model, inputs(5))
    loss, gradients = step(model, [whole])
    expected = model(whole.inputs, whole.targets["mask"].values).mean().item()
    assert loss == pytest.approx(expected, rel=1e-6)
    in_parts, of_parts = step(model, whole.parts(3))
    assert in_parts == pytest.approx(loss, rel=1e-6)
    for one, two in zip(gradients, of_parts, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-7)


@BOTH
def test_what_an_idle_device_repeats_changes_nothing(build: Build, inputs: Inputs) -> None:
    model = build()
    whole = masked(model, inputs(3))
    idle = whole.rows([1]).without_targets()
    (loss, gradients), (same, others) = step(model, [whole]), step(model, [whole, idle])
    assert same == loss
    assert all(map(torch.equal, gradients, others))


@BOTH
def test_validation_is_the_mean_error_of_the_held_out_samples(build: Build, inputs: Inputs) -> None:
    model = build()
    whole = batch(inputs(5))
    found = PretrainTask(held_out(model, whole, Rank())).validate(one_device(), model)
    masks = torch.stack([model.masking.draw(name, seed=1, epoch=0) for name in whole.ids])
    error = model(whole.inputs, masks).mean().item()
    assert found.scores == {"loss": pytest.approx(error, rel=1e-6)}
    assert found.rank == (-found.scores["loss"],)


def test_validation_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample is held out"):
        PretrainTask([]).validate(one_device(), image_autoencoder())


@BOTH
def test_the_error_falls_in_thirty_steps(build: Build, inputs: Inputs, tmp_path: Path) -> None:
    model = build()
    # 8 samples in batches of 4.
    training = run(
        one_device(),
        model,
        batch(inputs(10)),
        tmp_path / "scratch",
        epochs=15,
        batch_size=4,
        micro_batch_size=4,
    )
    errors = [row["train_loss"] for row in training.history]
    assert errors[0] > 0.95
    assert errors[-1] < 0.5
    assert training.history[-1]["validation_loss"] < 0.5


class Stop(Exception):
    pass


@BOTH
def test_a_training_that_was_stopped_goes_on_bit_for_bit(
    build: Build, inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_in_second(row: Epoch) -> None:
        if row["epoch"] == 2:
            raise Stop

    whole, fabric = batch(inputs(9)), one_device()
    through = build()
    history = run(fabric, through, whole, tmp_path / "one").history
    stopped = build()
    with pytest.raises(Stop):
        run(fabric, stopped, whole, tmp_path / "two", on_epoch=stop_in_second)
    capsys.readouterr()
    resumed = build()
    again = run(fabric, resumed, whole, tmp_path / "two").history
    assert capsys.readouterr().out.startswith("going on in epoch 2 after 0 steps")
    assert [without_clock(row) for row in again] == [without_clock(row) for row in history]
    for name, weights in through.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weights), name


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    paths = [str(tmp_path / "two.pt"), str(tmp_path / "scratch")]
    # One process takes two parts of a batch and the other one: they meet after the last.
    parts = ["--micro-batch-size", "1"]
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, "-m", "tiny_pretraining", *paths, *parts],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pretrain_both(one_device(), tmp_path / "one.pt", tmp_path / "other", micro_batch_size=3)
    two, one = torch.load(tmp_path / "two.pt"), torch.load(tmp_path / "one.pt")
    for method in ("videomae", "mae"):
        for row, same in zip(two[method]["history"], one[method]["history"], strict=True):
            assert without_clock(row) == pytest.approx(without_clock(same), rel=1e-5)
        torch.testing.assert_close(
            two[method]["weights"], one[method]["weights"], rtol=1e-4, atol=1e-6
        )
