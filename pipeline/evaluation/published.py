"""What the paper reports: Tables I to IV of MTCAE-DFER (arXiv 2412.18988).

Scores are in percent, as printed; None where the paper prints a dash. Scores of two protocols do
not compare: a table that shows both has to say which row follows which.
"""

from typing import NamedTuple

# Five subject-independent folds over the classes the paper uses.
PAPER = "paper"
# Six folds and all eight classes of RAVDESS, as the authors of MAE-DFER and of SVFAP tested.
MAE_DFER = "mae-dfer"

NUM_CLASSES = {"ravdess": 7, "cremad": 6, "mead": 8}


class PublishedResult(NamedTuple):
    """One row of a table for one dataset; `arch` and `decoder` are those of params.yaml."""

    method: str
    arch: str | None
    decoder: str | None
    dataset: str
    num_classes: int
    protocol: str
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
                uar=scores[column][0],
                war=scores[column][1],
                self_supervised=self_supervised,
                multi_task=multi_task,
                source=f"MTCAE-DFER, Table {('II', 'III', 'IV')[column]}",
            )
        )
    return results


def _column(dataset: str) -> int:
    if dataset not in NUM_CLASSES:
        raise ValueError(
            f"The paper reports nothing on {dataset!r}, only on {', '.join(NUM_CLASSES)}."
        )
    return list(NUM_CLASSES).index(dataset)
