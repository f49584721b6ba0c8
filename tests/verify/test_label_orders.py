import numpy as np

from pipeline.verify.label_orders import LabelOrder, best_order, known_orders, renumber

CLASSES = ["angry", "happy", "neutral", "sad"]


def test_known_orders_hold_all_classes_in_the_spelling_of_the_model() -> None:
    found = {order.name: order.classes for order in known_orders(["Anger", "happy", "neutral"])}
    assert found == {
        "RAVDESS's file names": ["neutral", "happy", "Anger"],
        "AffectNet": ["neutral", "happy", "Anger"],
        "DFEW": ["happy", "neutral", "Anger"],
        "RAF-DB": ["happy", "Anger", "neutral"],
    }
    assert "alphabetical" in {order.name for order in known_orders(["sad", "angry"])}
    assert not known_orders(["bored", "angry"])[1:]  # alphabetical alone


def test_the_best_order_undoes_a_permutation() -> None:
    actual = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    # Output 0 stands for neutral, 1 for angry, 2 for sad, 3 for happy; one clip is wrong.
    outputs = np.array([1, 1, 3, 3, 0, 0, 2, 1])
    order = best_order(CLASSES, actual, outputs)
    assert order.classes == ["neutral", "angry", "sad", "happy"]
    assert renumber(outputs, CLASSES, order).tolist() == [0, 0, 1, 1, 2, 2, 3, 0]


def test_outputs_that_say_nothing_keep_their_names() -> None:
    actual = np.array([0, 1, 2, 3])
    assert best_order(CLASSES, actual, actual).classes == CLASSES
    assert best_order(CLASSES, actual, np.zeros(4, np.int64)).classes[0] == "angry"


def test_a_renumbered_prediction_is_the_class_that_the_order_names() -> None:
    order = LabelOrder("x", ["sad", "angry", "happy", "neutral"])
    said = [CLASSES[i] for i in renumber(np.array([0, 1, 2, 3]), CLASSES, order)]
    assert said == order.classes
