"""The lines on top of affect/params.yaml."""

from typing import Literal

from pipeline.common.params import Section

SetName = Literal["rendered", "s_aff_wild2", "lsd", "custom"]
VAInput = Literal["vit_scores", "cnn_scores", "both", "features"]
System = Literal["emma", "cotex", "single"]


class Choices(Section):
    """What tells experiments apart: the lines on top of affect/params.yaml.

    Attributes:
        system: `emma`; `cotex`: two views, expression alone; `single`: one of them.
        set: Of images.
        model: A preset of `models`.
        init: What the encoders start from: a MAE of `rendered` people, the `weights` that
            encoder.weights names, or `random` numbers.
        cnn: Whose scores EMMA reads: a small one trained on `rendered` people, the `weights` that
            frozen_cnn names, or `none`.
        va_input: What EMMA's head of valence and arousal reads.
        recipe: A preset of `recipes`.
    """

    system: System
    set: SetName
    model: str
    init: Literal["rendered", "weights", "random"]
    cnn: Literal["rendered", "weights", "none"]
    va_input: VAInput
    recipe: str
