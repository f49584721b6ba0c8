"""What is published on the clips of films: DFEW, MAFW and FERV39k, by their official folds.

Both methods' code chooses the epoch by the score on the test clips, and tests several views of
each clip.
"""

from pipeline.evaluation.published import OFFICIAL, PublishedResult

NUM_CLASSES = {"dfew": 7, "mafw": 11, "ferv39k": 7}

# (method, multi-task, source): data set -> (UAR, WAR). MAE-DFER is self-supervised on VoxCeleb2,
# S4D on films and pictures, and is then trained on both at once.
_RESULTS: dict[tuple[str, bool, str], dict[str, tuple[float | None, float]]] = {
    ("MAE-DFER", False, "MAE-DFER, arXiv 2307.02227"): {
        "dfew": (63.41, 74.43),
        "mafw": (41.62, 54.31),
        "ferv39k": (43.12, 52.07),
    },
    ("S4D", True, "S4D, arXiv 2409.06154"): {
        "dfew": (66.80, 76.68),
        "mafw": (43.72, 58.44),
        "ferv39k": (None, 53.65),
    },
}


def in_the_wild_results(dataset: str) -> list[PublishedResult]:
    """The rows of a data set; none of one that is not among these."""
    return [
        PublishedResult(
            method=method,
            arch=None,
            decoder=None,
            dataset=dataset,
            num_classes=NUM_CLASSES[dataset],
            protocol=OFFICIAL,
            epoch_on_test=True,
            modality="video",
            uar=scores[dataset][0],
            war=scores[dataset][1],
            self_supervised=True,
            multi_task=multi_task,
            source=source,
        )
        for (method, multi_task, source), scores in _RESULTS.items()
        if dataset in scores
    ]
