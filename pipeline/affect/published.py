"""Scores on s-Aff-Wild2 that others have published; None where a score is not.

They compare with one another only where split and kind are the same. EMMA's own score is not
public: rank 2 of ABAW4's multi-task challenge.
"""

from typing import Literal, NamedTuple


class PublishedRow(NamedTuple):
    """A published result.

    Attributes:
        name: Of the team or method, and of the challenge.
        split: Of the pictures that are scored.
        kind: Whether a picture is judged by itself, or with its neighbours in time.
        p_mtl: Sum of the three below.
        va_ccc: Mean CCC.
        expression_f1: Macro F1 of eight classes.
        au_f1: Mean F1 of twelve units.
    """

    name: str
    split: Literal["validation", "test", "not stated"]
    kind: Literal["per frame", "temporal", "not stated"]
    p_mtl: float
    va_ccc: float | None = None
    expression_f1: float | None = None
    au_f1: float | None = None


PUBLISHED_ROWS = (
    PublishedRow("AIM3-RUC, ABAW4 (first)", "validation", "temporal", 1.7607),
    PublishedRow("AIM3-RUC, ABAW4 (first)", "test", "temporal", 1.4361),
    PublishedRow("HSEmotion, ABAW7", "validation", "per frame", 1.3128, 0.4906, 0.3396, 0.4826),
    PublishedRow("HSEmotion, ABAW7, smoothed", "validation", "temporal", 1.4557),
    PublishedRow("CNU_Sclab", "validation", "not stated", 1.25, 0.49, 0.33, 0.43),
    PublishedRow("Netease Fuxi, ABAW7", "not stated", "not stated", 1.5286, 0.5420, 0.4286, 0.5580),
    PublishedRow("AffectFlow-DINO ViT-S", "validation", "not stated", 1.177),
    PublishedRow("baseline, ABAW4", "validation", "per frame", 0.30),
    PublishedRow("baseline, ABAW7", "validation", "per frame", 0.32),
)
