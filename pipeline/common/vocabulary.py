"""The words for expressions: one vocabulary for all data sets.

The order of classes is each data set's own list in params.yaml, never that of names.
"""

SYNONYMS = {
    "anger": "angry",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprise": "surprised",
}


def normalise_label(word: str) -> str:
    """An expression word in the project's vocabulary: `" Anger"` -> `"angry"`."""
    word = word.strip().casefold()
    return SYNONYMS.get(word, word)
