"""RAVDESS: what a file name says. The embedded `sample` set names its clips the same way.

A name is modality-channel-emotion-intensity-statement-repetition-actor, two digits each:
`02-01-06-01-02-01-12.mp4` is video only, speech, fearful, normal intensity, "dogs", first
repetition, actor 12.

Source: Livingstone and Russo 2018, the data set's own description (Zenodo record 1188976).
"""

import re
from pathlib import Path

from pipeline.data.clips import Clip

# Calm is merged into neutral: the 7-class protocol of MTCAE-DFER.
EMOTIONS = {
    "01": "neutral",
    "02": "neutral",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprised",
}
_NAME = re.compile(r"(01|02|03)-(01|02)-(0[1-8])-(01|02)-(01|02)-(01|02)-(\d\d)")


def parse_name(path: str) -> Clip:
    """The clip that a RAVDESS file name describes; odd actors are male, even ones female.

    Raises:
        ValueError: The name does not follow the scheme.
    """
    stem = Path(path).stem
    match = _NAME.fullmatch(stem)
    if not match:
        raise ValueError(
            f"{path}: not a RAVDESS name (seven two-digit fields, such as 02-01-06-01-02-01-12)"
        )
    emotion, actor = match[3], match[7]
    return Clip(
        clip=stem,
        path=path,
        subject=f"actor_{actor}",
        label=EMOTIONS[emotion],
        sex="male" if int(actor) % 2 else "female",
    )
