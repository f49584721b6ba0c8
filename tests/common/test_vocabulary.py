from pipeline.common.vocabulary import normalise_label


def test_labels_come_into_one_vocabulary() -> None:
    words = [" Anger", "HAPPINESS", "fearful", "Surprise\n", "neutral", "bored"]
    assert [normalise_label(word) for word in words] == [
        "angry",
        "happy",
        "fear",
        "surprised",
        "neutral",
        "bored",
    ]
