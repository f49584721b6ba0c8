"""EMMA: valence and arousal from the scores of expressions and action units.

Shape letters: B images, C classes, U action units.

Source: Affective Behaviour Analysis Using Pretrained Model with Facial Prior (arXiv 2207.11679),
section 3; the readings taken where the paper is silent are listed in docs/affect.md.
"""

from typing import NamedTuple

from torch import Tensor


class Predictions(NamedTuple):
    """What the heads say, unbounded: no tanh, no softmax, no sigmoid."""

    valence_arousal: Tensor
    """(B, 2)"""
    expression: Tensor
    """(B, C) logits"""
    aus: Tensor
    """(B, U) logits"""
