"""What is published on the data sets: MTCAE-DFER's own tables (arXiv 2412.18988), and others.

Scores are in per cent, as printed; None where a dash is printed. Scores of two protocols do not
compare, nor does one whose epoch the test clips chose with one whose epoch they did not: a table
that shows both has to mark them.
"""

from typing import Literal, NamedTuple

PAPER = "paper"
MAE_DFER = "mae-dfer"
NOTEBOOK = "notebook"
RATERS = "raters"
OFFICIAL = "official"

PROTOCOLS = {
    PAPER: "Five subject-independent folds; which subjects were tested together is not published.",
    MAE_DFER: "RAVDESS: six folds of four consecutive actors, all eight classes. CREMA-D: five "
    "folds of consecutive actors.",
    "emobox": "RAVDESS: six folds of four actors, all eight classes, as EmoBox tests speech.",
    "loso": "Every subject is a fold.",
    "holdout": "One test part, given or drawn.",
    OFFICIAL: "By the data set's own lists, clip by clip. DFEW, MAFW: five folds. FERV39k: one.",
    NOTEBOOK: "RAVDESS: one split into 720 clips to train on, 360 for validation and 360 to test.",
    RATERS: "CREMA-D: 2,443 people named the expression of clips that they watched without sound.",
}
"""What a protocol is, in a sentence or two: all of params.yaml, and those of published rows."""

NUM_CLASSES = {"ravdess": 7, "cremad": 6, "mead": 8}
"""Of MTCAE-DFER's tables."""


Modality = Literal["video", "audio-visual", "people"]


class PublishedResult(NamedTuple):
    """One row of a table for one data set.

    Attributes:
        method: Its name.
        arch: As in params.yaml, and so is `decoder`; None where it is none of ours.
        protocol: One of PROTOCOLS.
        epoch_on_test: Whether the epoch was chosen by the score on the test clips; None where that
            is not known.
        modality: What was seen and heard; `people` saw the video alone.
        source: Where the numbers are from.
    """

    method: str
    arch: str | None
    decoder: str | None
    dataset: str
    num_classes: int
    protocol: str
    epoch_on_test: bool | None
    modality: Modality
    uar: float | None
    war: float
    self_supervised: bool
    multi_task: bool
    source: str


_Scores = tuple[tuple[float | None, float], ...]

# (arch, decoder): (UAR, WAR) in the order of NUM_CLASSES. Table I.
_ABLATION: dict[tuple[str, str | None], _Scores] = {
    ("stl", None): ((72.36, 74.44), (75.87, 76.21), (77.83, 79.61)),
    ("non_fully_shared", "mlp"): ((75.56, 77.28), (77.23, 79.89), (81.40, 82.14)),
    ("non_fully_shared", "vit"): ((81.11, 82.17), (83.40, 83.67), (84.75, 86.57)),
    ("fully_shared", "mlp"): ((75.95, 76.84), (76.25, 77.55), (79.12, 80.93)),
    ("fully_shared", "vit"): ((80.02, 81.43), (81.64, 82.38), (84.03, 84.74)),
    ("cascaded", "vit"): ((82.73, 83.69), (84.71, 85.03), (87.51, 88.44)),
}

# (method, self-supervised, multi-task): (UAR, WAR) in the order of NUM_CLASSES. Tables II to IV.
_COMPARISON: dict[tuple[str, bool, bool], _Scores] = {
    ("VO-LSTM", False, False): ((None, 60.50), (None, 66.80), (None, 68.87)),
    ("3D ResNeXt-50", False, False): ((None, 62.99), (None, 69.14), (None, 72.56)),
    ("SVFAP", True, False): ((75.15, 75.01), (77.31, 77.37), (80.04, 80.23)),
    ("MAE-DFER", True, False): ((75.91, 75.56), (77.33, 77.38), (80.71, 80.95)),
    ("MNC", False, True): ((61.81, 61.43), (67.93, 68.57), (70.82, 70.16)),
    ("MTL-ER", False, True): ((73.54, 74.19), (74.45, 75.62), (77.26, 78.36)),
    ("MTFormer", True, True): ((79.40, 79.68), (79.34, 80.74), (84.03, 84.74)),
    ("MTCAE-DFER", True, True): ((82.73, 83.69), (84.71, 85.03), (87.51, 88.44)),
}

# These rows are those of SVFAP's and MAE-DFER's own papers, whose code chooses the epoch on the
# test clips. MEAD is in neither: others trained them there. Their CREMA-D goes as PAPER: as many
# folds and the same classes, and nobody knows whom the paper tested together.
_EPOCH_ON_TEST = {
    (method, dataset) for method in ("SVFAP", "MAE-DFER") for dataset in ("ravdess", "cremad")
}

# (method, protocol, modality, multi-task, source): data set -> (UAR, WAR). All are self-supervised,
# and choose the epoch on the test clips.
_OTHERS: dict[tuple[str, str, Modality, bool, str], dict[str, tuple[float | None, float]]] = {
    ("HiCMAE", MAE_DFER, "audio-visual", False, "HiCMAE, arXiv 2401.05698"): {
        "ravdess": (87.96, 87.99),
        "cremad": (84.94, 84.91),
    },
    ("AVF-MAE++", MAE_DFER, "audio-visual", False, "AVF-MAE++, CVPR 2025"): {
        "ravdess": (87.44, 87.57),
        "cremad": (86.02, 85.95),
    },
    ("MAE-DFER", OFFICIAL, "video", False, "MAE-DFER, arXiv 2307.02227"): {
        "dfew": (63.41, 74.43),
        "mafw": (41.62, 54.31),
        "ferv39k": (43.12, 52.07),
    },
    ("S4D", OFFICIAL, "video", True, "S4D, arXiv 2409.06154"): {
        "dfew": (66.80, 76.68),
        "mafw": (43.72, 58.44),
        "ferv39k": (None, 53.65),
    },
}
_NUM_CLASSES = {"ravdess": 8, "cremad": 6, "dfew": 7, "mafw": 11, "ferv39k": 7}  # Of these rows.

_PEOPLE = PublishedResult(
    method="people",
    arch=None,
    decoder=None,
    dataset="cremad",
    num_classes=6,
    protocol=RATERS,
    epoch_on_test=False,
    modality="people",
    uar=None,
    war=58.2,
    self_supervised=False,
    multi_task=False,
    source="Cao et al. 2014, IEEE Transactions on Affective Computing 5(4)",
)

# The small decoder, width 256 and 3 layers, on a frozen ViT-L trained on Kinetics-400. Training
# stops 50 epochs after the best on validation, and the weights of that last epoch are tested.
_NOTEBOOK = PublishedResult(
    method="MTCAE-DFER, the authors' notebook",
    arch="cascaded",
    decoder="vit",
    dataset="ravdess",
    num_classes=7,
    protocol=NOTEBOOK,
    epoch_on_test=False,
    modality="video",
    uar=55.95,
    war=57.22,
    self_supervised=True,
    multi_task=True,
    source="the printed run in github.com/Peihao-Xiang/MTCAE-DFER",
)


def ablation_results(dataset: str) -> list[PublishedResult]:
    """The six model structures on one dataset, in the order of Table I.

    Args:
        dataset: ravdess, cremad or mead.

    Raises:
        ValueError: The paper has no such dataset.
    """
    column = _column(dataset)
    return [
        PublishedResult(
            method=arch if decoder is None else f"{arch} {decoder}",
            arch=arch,
            decoder=decoder,
            dataset=dataset,
            num_classes=NUM_CLASSES[dataset],
            protocol=PAPER,
            epoch_on_test=None,
            modality="video",
            uar=scores[column][0],
            war=scores[column][1],
            self_supervised=True,
            multi_task=arch != "stl",
            source="MTCAE-DFER, Table I",
        )
        for (arch, decoder), scores in _ABLATION.items()
    ]


def comparison_results(dataset: str) -> list[PublishedResult]:
    """The eight methods compared on one dataset, in the order of Table II, III or IV.

    Args:
        dataset: ravdess, cremad or mead.

    Raises:
        ValueError: The paper has no such dataset.
    """
    column = _column(dataset)
    results = []
    for (method, self_supervised, multi_task), scores in _COMPARISON.items():
        other = dataset == "ravdess" and method in ("SVFAP", "MAE-DFER")
        proposed = method == "MTCAE-DFER"
        results.append(
            PublishedResult(
                method=method,
                arch="cascaded" if proposed else None,
                decoder="vit" if proposed else None,
                dataset=dataset,
                num_classes=8 if other else NUM_CLASSES[dataset],
                protocol=MAE_DFER if other else PAPER,
                epoch_on_test=True if (method, dataset) in _EPOCH_ON_TEST else None,
                modality="video",
                uar=scores[column][0],
                war=scores[column][1],
                self_supervised=self_supervised,
                multi_task=multi_task,
                source=f"MTCAE-DFER, Table {('II', 'III', 'IV')[column]}",
            )
        )
    return results


def other_results(dataset: str) -> list[PublishedResult]:
    """What the paper's tables lack: other methods and data sets, people, its own printed run.

    Args:
        dataset: Any; one that nobody tested so gives no row.
    """
    rows = [
        PublishedResult(
            method=method,
            arch=None,
            decoder=None,
            dataset=dataset,
            num_classes=_NUM_CLASSES[dataset],
            protocol=protocol,
            epoch_on_test=True,
            modality=modality,
            uar=scores[dataset][0],
            war=scores[dataset][1],
            self_supervised=True,
            multi_task=multi_task,
            source=source,
        )
        for (method, protocol, modality, multi_task, source), scores in _OTHERS.items()
        if dataset in scores
    ]
    return rows + [row for row in (_PEOPLE, _NOTEBOOK) if row.dataset == dataset]


def _column(dataset: str) -> int:
    if dataset not in NUM_CLASSES:
        raise ValueError(
            f"The paper reports nothing on {dataset!r}, only on {', '.join(NUM_CLASSES)}."
        )
    return list(NUM_CLASSES).index(dataset)
