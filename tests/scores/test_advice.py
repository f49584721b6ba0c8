import pytest

from pipeline.scores.advice import advice


@pytest.mark.parametrize(
    ("uars", "num_classes"),
    [
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 2),
        ([0.45, 0.6, 0.51, 0.4, 0.5, 0.52], 2),
        ([0.14, 0.15, 0.16, 0.3, 0.4, 0.15], 7),
    ],
)
def test_a_training_at_chance_for_more_than_a_third_of_its_epochs_gets_advice(
    uars: list[float], num_classes: int
) -> None:
    line = advice(uars, num_classes)
    at_chance = sum(uar <= 1 / num_classes + 0.02 for uar in uars)
    assert f"in {at_chance} of 6 epochs the validation was at chance" in line
    assert f"UAR {1 / num_classes:.0%}" in line
    for choice in ("frames.crop", "encoder.weights", "engine.epochs", "optimizer.learning_rate"):
        assert choice in line
    assert "\n" not in line


def test_a_training_that_left_chance_late_is_told_to_take_more_epochs() -> None:
    assert advice([0.45, 0.5, 0.51, 0.9, 0.9, 0.9], 2) == (
        "in 3 of 6 epochs the validation was at chance (UAR 50%), and left it late: more "
        "engine.epochs make sure that it does"
    )


@pytest.mark.parametrize("uars", [[0.5, 0.5, 0.6, 0.7, 0.8, 0.9], [0.6] * 6])
def test_a_training_that_leaves_chance_in_its_first_third_gets_none(uars: list[float]) -> None:
    assert advice(uars, 2) == ""
