from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from small import LOSS
from tiny_training import NoiseClips, clips, tiny_model

from pipeline.feed.batches import evaluation_batches
from pipeline.feed.order import Rank
from pipeline.mtcae.loss import count, multitask_loss
from pipeline.mtcae.predictions import evaluate
from pipeline.store.batch import Batch


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.mark.parametrize(("arch", "decoder"), [("cascaded", "vit"), ("stl", "vit")])
def test_evaluation_gives_every_clip_once_in_order_with_the_losses_of_the_whole(
    fabric: Fabric, arch: str, decoder: str
) -> None:
    model = tiny_model(arch, decoder, dropout=0.5).train()
    whole = clips(7)
    result = evaluate(fabric, model, whole.parts(3), LOSS)
    with torch.no_grad():
        expected = model.eval()(whole.inputs / 255)
    assert result.clips == whole.ids
    assert result.subjects == whole.groups
    boxes, points = whole.targets["boxes"], whole.targets["points"]
    assert result.labels.tolist() == whole.targets["expression"].values.tolist()
    assert (result.target_boxes == boxes.values.numpy()).all()
    assert (result.target_points == points.values.numpy()).all()
    assert (result.mask == boxes.known.numpy()).all()
    np.testing.assert_allclose(result.probabilities, expected.logits.softmax(dim=1), atol=1e-6)
    for predicted, wanted in ((result.boxes, expected.boxes), (result.points, expected.points)):
        assert (predicted is None) == (wanted is None)
        if predicted is not None:
            np.testing.assert_allclose(predicted, wanted, atol=1e-5)
    losses = multitask_loss(expected, whole.targets, LOSS, count(whole.targets))
    assert list(result.losses) == ["total", "boxes", "points", "expression"]
    assert list(result.losses.values()) == pytest.approx([loss.item() for loss in losses], rel=1e-5)


def test_an_evaluation_with_workers_keeps_no_files_open(fabric: Fabric) -> None:
    open_files = []

    def watched() -> Iterator[Batch]:
        source = NoiseClips(clips(60))
        for batch in evaluation_batches(source, batch_size=1, rank=Rank(), num_workers=1):
            yield batch
            open_files.append(len(list(Path("/proc/self/fd").iterdir())))

    assert len(evaluate(fabric, tiny_model(), watched(), LOSS).clips) == 60
    # A few batches are on their way at any time.
    assert open_files[-1] < open_files[4] + 20


def test_losses_of_an_evaluation_do_not_depend_on_the_batches(fabric: Fabric) -> None:
    model, whole = tiny_model(), clips(7, known=0.5)
    in_threes = evaluate(fabric, model, whole.parts(3), LOSS)
    at_once = evaluate(fabric, model, [whole], LOSS)
    assert in_threes.losses == pytest.approx(at_once.losses, rel=1e-5)


def test_labels_are_not_smoothed_in_an_evaluation(fabric: Fabric) -> None:
    model, smoothed = tiny_model(), LOSS.model_copy(update={"label_smoothing": 0.5})
    losses = [evaluate(fabric, model, [clips(4)], settings).losses for settings in (LOSS, smoothed)]
    assert losses[0] == losses[1]
