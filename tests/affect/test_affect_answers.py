import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from tiny_affect import C, U, emma_task, noise_pictures, tiny_emma

from pipeline.affect.labels import EXPRESSIONS, LabelledImage, Labels, truth_from
from pipeline.affect.metrics import Numbers, score
from pipeline.affect.predictions import Evaluation, ask, evaluation_of, predictions_table
from pipeline.affect.tuning import (
    Frames,
    best_thresholds,
    check_groups,
    frames_of,
    smooth,
    tune,
)


def evaluation(num_images: int = 60, seed: int = 0) -> Evaluation:
    """What somebody says who knows the truth a little; frames 1, 2, ... of three tracks."""
    random = np.random.default_rng(seed)
    truth = truth_from(noise_pictures(num_images, seed=seed).targets)
    expression = random.random((num_images, C)) + np.eye(C)[truth.expression]
    return Evaluation(
        [f"image{i}" for i in range(num_images)],
        [f"group{seed}_{i % 3}" for i in range(num_images)],
        truth,
        truth.valence_arousal + random.normal(size=(num_images, 2)),
        expression / expression.sum(axis=1, keepdims=True),
        (0.3 * truth.aus + 0.5 * random.random((num_images, U))),
    )


def frames(num_images: int = 60) -> Frames:
    return Frames(
        [f"track{i % 3}" for i in range(num_images)], [1 + i // 3 for i in range(num_images)]
    )


def test_every_picture_is_asked_about_once_and_in_order() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    model, whole = tiny_emma().eval(), noise_pictures(9)
    found = evaluation_of(ask(fabric, emma_task().answer(model), whole.parts(4)))
    with torch.no_grad():
        expected = model(whole.inputs, torch.empty(9, 0))
    assert found.ids == whole.ids
    assert found.groups == whole.groups
    np.testing.assert_allclose(
        found.valence_arousal, expected.valence_arousal, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(found.expression, expected.expression.softmax(1), rtol=1e-4)
    np.testing.assert_allclose(found.aus, expected.aus.sigmoid(), rtol=1e-4)
    assert found.truth.aus_known.tolist() == whole.targets["aus"].known.tolist()


def test_the_table_tells_truth_and_prediction_and_leaves_out_what_is_not_known() -> None:
    found = evaluation(12)
    table = predictions_table(found, found.answers(), 3, EXPRESSIONS).set_index("image")
    row, number = table.loc["image7"], 7
    assert row["fold"] == 3
    known = found.truth.expression_known[number]
    assert row["actual"] == (EXPRESSIONS[found.truth.expression[number]] if known else None)
    assert row["predicted"] == EXPRESSIONS[found.expression[number].argmax()]
    assert row["probability_sad"] == found.expression[number, 5]
    valence = table["actual_valence"].notna()
    in_order = [int(name.removeprefix("image")) for name in table.index]
    assert valence.tolist() == found.truth.valence_arousal_known[in_order, 0].tolist()
    au = table["actual_au12"]
    assert au.isna().tolist() == (~found.truth.aus_known[in_order, 6]).tolist()
    assert au.dropna().astype(bool).tolist() == [
        bool(found.truth.aus[i, 6]) for i in in_order if found.truth.aus_known[i, 6]
    ]
    assert not pd.isna(table["predicted_au12"]).any()


def test_the_best_threshold_of_a_unit_is_found_by_hand() -> None:
    probabilities = np.array([[0.1], [0.22], [0.28], [0.9]])
    active = np.array([[False], [True], [True], [True]])
    known = np.ones((4, 1), np.bool_)
    # From .15 to .2 all are right; .2 is the closer one to a half.
    assert best_thresholds(probabilities, active, known).tolist() == pytest.approx([0.2])
    assert best_thresholds(probabilities, ~active & active, known).tolist() == pytest.approx([0.5])


def test_tuning_raises_p_mtl_where_it_tunes_and_never_lowers_it() -> None:
    validation = evaluation()
    tuned = tune(validation, frames())
    before = score(validation.answers(), validation.truth, C).p_mtl
    after = score(tuned.answers(validation, frames()), validation.truth, C).p_mtl
    assert after > before + 0.1


def permuted(tested: Evaluation) -> Evaluation:
    order = np.random.default_rng(9).permutation(len(tested.ids))
    truth = tested.truth._replace(
        valence_arousal=tested.truth.valence_arousal[order],
        expression=tested.truth.expression[order],
        aus=tested.truth.aus[order],
    )
    return tested._replace(truth=truth)


def test_the_labels_of_a_test_choose_neither_thresholds_nor_smoothing() -> None:
    validation, tested = evaluation(seed=1), evaluation(seed=2)

    def said(test: Evaluation) -> list[Numbers]:
        return [np.asarray(x) for x in tune(validation, frames()).answers(test, frames())]

    for one, other in zip(said(tested), said(permuted(tested)), strict=True):
        assert (one == other).all()


def test_groups_that_are_tested_and_tuned_on_are_refused() -> None:
    validation, tested = evaluation(seed=1), evaluation(seed=2)
    check_groups(validation, tested)
    slipped = tested._replace(groups=[validation.groups[0], *tested.groups[1:]])
    with pytest.raises(ValueError, match="1 groups, such as group1_0, are tested and have chosen"):
        check_groups(validation, slipped)


def test_smoothing_is_a_mean_over_the_frames_nearby_of_the_same_track() -> None:
    found = evaluation(6)
    some = Frames(["a", "a", "b", "a", "a", "b"], [10, 1, 11, 2, 12, 3])
    smoothed = smooth(found, some, radius=2)
    means = {0: [0, 4], 1: [1, 3], 2: [2], 3: [1, 3], 4: [0, 4], 5: [5]}
    for columns in ("valence_arousal", "expression", "aus"):
        values = getattr(found, columns)
        expected = np.stack([values[own].mean(axis=0) for own in means.values()])
        np.testing.assert_allclose(getattr(smoothed, columns), expected, rtol=1e-12)
    assert smooth(found, some, radius=0) is found


def test_a_track_is_a_folder_and_a_frame_is_named_by_its_number() -> None:
    def image(path: str) -> LabelledImage:
        return LabelledImage(path, path, "v1", "test", Labels())

    found = frames_of([image("v1_left/00012.jpg"), image("v1_right/00012.jpg")])
    assert found == Frames(["v1_left", "v1_right"], [12, 12])
    with pytest.raises(ValueError, match=r"v1/first\.jpg is not named by the number of its frame"):
        frames_of([image("v1/first.jpg")])
