import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from small import image_encoder
from tiny_affect import (
    BATCH_SIZE,
    LOSS,
    POS_WEIGHT,
    C,
    emma_task,
    noise_pictures,
    one_step,
    partly_labelled,
    run,
    tiny_emma,
)
from tiny_training import ENVIRONMENT, fit, without_clock
from torch import Tensor, nn
from torch.optim import AdamW

from pipeline.affect.cnn import FrozenCNN
from pipeline.affect.cotex import MaskedCoTEX
from pipeline.affect.emma import Predictions
from pipeline.affect.losses import count, js_divergence, multitask_loss
from pipeline.affect.metrics import concordance
from pipeline.affect.task import CoTEXTask, EMMATask
from pipeline.store.batch import Batch
from pipeline.training.optim import OptimizerSettings, adamw
from pipeline.training.task import Place


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def small_cnn() -> FrozenCNN:
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    return FrozenCNN(
        network, ("happy", "sad", "fear"), size=16, normalisation="half", source="small"
    )


@pytest.mark.parametrize("size", [8, 5, 1])
def test_a_batch_of_24_is_its_parts(size: int) -> None:
    model, batch = tiny_emma(), partly_labelled()
    assert len(batch) == BATCH_SIZE
    whole, gradients = one_step(model, emma_task(), batch, BATCH_SIZE)
    losses, others = one_step(model, emma_task(), batch, size)
    torch.testing.assert_close(losses, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-7)
    # And the whole is the plain formula.
    said = model(batch.inputs, torch.empty(BATCH_SIZE, 0)).valence_arousal[:, 1]
    target = batch.targets["valence_arousal"]
    known = target.known[:, 1]
    ccc = concordance(said[known].detach().numpy(), target.values[known, 1].numpy())
    assert whole[2].item() == pytest.approx(1 - ccc, abs=1e-5)


@pytest.mark.slow
def test_two_processes_train_like_one_and_parts_like_a_whole(
    tmp_path: Path, fabric: Fabric
) -> None:
    model = tiny_emma()
    history = run(fabric, model, micro_batch_size=BATCH_SIZE)
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    out = tmp_path / "out.pt"
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "tiny_affect", str(out), "5"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    two = torch.load(out)
    torch.testing.assert_close(two["weights"], model.state_dict(), rtol=1e-4, atol=1e-6)
    for row, same in zip(two["history"], history, strict=True):
        assert without_clock(row) == pytest.approx(without_clock(same), rel=1e-4)
    untrained = tiny_emma().state_dict()
    assert (model.state_dict()["va_head.0.weight"] - untrained["va_head.0.weight"]).abs().max() > 0


class Recorder(nn.Module):
    """Keeps what a model says in each forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.said: list[Tensor] = []

    def forward(self, *inputs: Tensor) -> Predictions:
        predictions: Predictions = self.model(*inputs)
        self.said.append(predictions.valence_arousal.detach())
        return predictions


def forward_passes(size: int, place: Place, seed: int = 1) -> list[Tensor]:
    """What is said of a batch of 24 in a step with drop path, in the order of the passes."""
    recorder, task = Recorder(tiny_emma(drop_path=0.5)).train(), emma_task(seed=seed)
    parts = task.parts(noise_pictures(BATCH_SIZE), place, size)
    totals = torch.stack([task.totals(recorder, part) for part in parts]).sum(dim=0)
    for part in parts:
        task.losses(recorder, part, totals)
    return recorder.said


def test_both_passes_over_a_part_draw_the_same_random_numbers() -> None:
    passes = forward_passes(8, Place(1, 0, 0))
    assert len(passes) == 6
    for first, second in zip(passes[:3], passes[3:], strict=True):
        assert torch.equal(first, second)
    torch.manual_seed(99)  # whatever was drawn before
    assert torch.equal(torch.cat(forward_passes(8, Place(1, 0, 0))), torch.cat(passes))
    for place in (Place(2, 0, 0), Place(1, 1, 0), Place(1, 0, 1)):
        assert not torch.equal(forward_passes(8, place)[0], passes[0])
    assert not torch.equal(forward_passes(8, Place(1, 0, 0), seed=2)[0], passes[0])


def test_a_part_that_is_alone_is_predicted_once() -> None:
    assert len(forward_passes(BATCH_SIZE, Place(1, 0, 0))) == 1


def test_the_moments_are_those_of_the_predictions_that_get_the_gradients() -> None:
    """With drop path, other draws would make the loss that of no model."""
    model, batch = tiny_emma(drop_path=0.5), noise_pictures(BATCH_SIZE)
    losses, _ = one_step(model, emma_task(), batch, 8)
    said = torch.cat(forward_passes(8, Place(1, 0, 0))[3:])
    for i in range(2):
        known = batch.targets["valence_arousal"].known[:, i]
        labels = batch.targets["valence_arousal"].values[known, i]
        ccc = concordance(said[known, i].numpy(), labels.numpy())
        assert losses[1 + i].item() == pytest.approx(1 - ccc, abs=1e-5)


def test_no_parameter_or_buffer_of_the_cnn_changes_in_an_epoch(fabric: Fabric) -> None:
    cnn = small_cnn()
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    model = tiny_emma("both", num_cnn_classes=3)
    untrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [noise_pictures(8, seed=i) for i in range(2)]
    fit(fabric, model, batches, emma_task(cnn), epochs=1, micro_batch_size=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())
    trained = [name for name, p in model.named_parameters() if not torch.equal(p, untrained[name])]
    assert len(trained) > 0.9 * len(untrained) - 2


def quick(model: nn.Module) -> AdamW:
    settings = OptimizerSettings(learning_rate=1e-2, weight_decay=0.0, layer_decay=1.0)
    return adamw(model, settings)


def num_classes_of(batch: Batch) -> int:
    labels, known = batch.targets["expression"]
    return len(set(labels[known].tolist()))


def test_emma_learns_pictures_by_heart(fabric: Fabric) -> None:
    few = noise_pictures(8, known=0.8)
    task = EMMATask(LOSS, POS_WEIGHT, small_cnn(), num_classes=C, seed=1, validation=[few])
    model = tiny_emma("both", num_cnn_classes=3)
    history = fit(fabric, model, [few], task, epochs=60, optimizer=quick(model)).history
    last = history[-1]
    assert last["validation_va_ccc"] > 0.8
    assert last["validation_expression_f1"] > 0.8 * num_classes_of(few) / C
    assert last["validation_au_f1"] > 0.9 > history[0]["validation_au_f1"]


def test_validation_is_of_all_pictures_and_ranks_by_p_mtl_and_then_by_loss(
    fabric: Fabric,
) -> None:
    whole, model = noise_pictures(20), tiny_emma()
    task = EMMATask(LOSS, POS_WEIGHT, small_cnn(), num_classes=C, seed=1, validation=whole.parts(7))
    found = task.validate(fabric, tiny_emma())
    predictions = model.eval()(whole.inputs, torch.empty(20, 0))
    totals = count(whole.targets, predictions.valence_arousal)
    loss = multitask_loss(predictions, whole.targets, LOSS, POS_WEIGHT, totals).total.item()
    assert found.scores["loss"] == pytest.approx(loss, rel=1e-5)
    terms = ("va_ccc", "expression_f1", "au_f1")
    p_mtl = sum(found.scores[name] for name in terms)
    assert found.scores["p_mtl"] == pytest.approx(p_mtl)
    assert found.rank == pytest.approx((p_mtl, -loss))


def test_a_set_without_expressions_is_ranked_by_what_it_has(fabric: Fabric) -> None:
    whole = noise_pictures(20)
    whole.targets["expression"].known[:] = False
    task = EMMATask(LOSS, POS_WEIGHT, small_cnn(), num_classes=C, seed=1, validation=[whole])
    found = task.validate(fabric, tiny_emma())
    assert np.isnan(found.scores["p_mtl"])
    assert found.rank[0] == pytest.approx(found.scores["va_ccc"] + found.scores["au_f1"])


def cotex(views: int = 2, mask_rate: float = 0.0) -> MaskedCoTEX:
    torch.manual_seed(1)
    encoders = [image_encoder() for _ in range(views)]
    return MaskedCoTEX(encoders, num_classes=C, mask_rate=mask_rate)


def cotex_task(validation: Batch, js_weight: float = 12.5) -> CoTEXTask:
    return CoTEXTask(js_weight, num_classes=C, validation=validation.parts(5))


def test_the_loss_of_cotex_is_the_mean_cross_entropy_and_the_divergence() -> None:
    model, batch = cotex().eval(), noise_pictures(12)
    task = cotex_task(batch)
    parts = task.parts(batch, Place(1, 0, 0), 5)
    totals = torch.stack([task.totals(model, part) for part in parts]).sum(dim=0)
    losses = torch.stack(
        [torch.stack(list(task.losses(model, part, totals))) for part in parts]
    ).sum(dim=0)
    labels, known = batch.targets["expression"]
    views = model(batch.inputs)[:, known]
    entropy = torch.stack([nn.functional.cross_entropy(one, labels[known]) for one in views]).mean()
    divergence = js_divergence(views).mean()
    torch.testing.assert_close(
        losses, torch.stack([entropy + 12.5 * divergence, entropy, divergence])
    )


def test_cotex_learns_pictures_by_heart_and_its_views_agree(fabric: Fabric) -> None:
    batch, model = noise_pictures(6, known=1), cotex(mask_rate=0.25)
    history = fit(
        fabric, model, [batch], cotex_task(batch), epochs=40, optimizer=quick(model)
    ).history
    last = history[-1]
    assert last["validation_expression_f1"] > 0.8 * num_classes_of(batch) / C
    assert last["validation_js_divergence"] < 0.05
    assert last["train_expression_loss"] < 0.5 * history[0]["train_expression_loss"]


def test_one_view_is_a_plain_classifier(fabric: Fabric) -> None:
    batch, model = noise_pictures(6, known=1), cotex(views=1)
    history = fit(
        fabric, model, [batch], cotex_task(batch), epochs=15, optimizer=quick(model)
    ).history
    assert all(row["train_js_divergence"] == 0 for row in history)
    assert history[-1]["train_expression_loss"] < 0.5 * history[0]["train_expression_loss"]
    assert history[-1]["train_loss"] == history[-1]["train_expression_loss"]


def test_a_validation_without_expressions_cannot_choose_an_epoch(fabric: Fabric) -> None:
    batch = noise_pictures(4).without_targets()
    with pytest.raises(ValueError, match="no validation picture has a known expression"):
        cotex_task(batch).validate(fabric, cotex())
