"""Where the encoder of a training comes from."""

from pathlib import Path

from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import VideoMAEEncoder

# In the place of a checkpoint: DVC can depend on a file, but not on "no file".
FROM_SCRATCH = "from_scratch"
NO_WEIGHTS = (
    "a frozen encoder without weights would stay random: name a checkpoint in encoder.weights "
    "(docs/checkpoints.md), or take a recipe with `encoder: full`"
)


def start_encoder(encoder: VideoMAEEncoder, weights: Path, *, frozen: bool) -> None:
    """Fill the encoder from a checkpoint, unless its name is `from_scratch`, and freeze it.

    Raises:
        ValueError: The encoder is to be frozen and there is no checkpoint, or it does not fit.
    """
    if weights.name == FROM_SCRATCH and frozen:
        raise ValueError(NO_WEIGHTS)
    if weights.name != FROM_SCRATCH:
        report = load_encoder(encoder, weights)
        print(
            f"encoder: {len(report.matched)} weights from {weights.name} ({report.family}); left "
            f"aside: {len(report.dropped)} known, unknown: {report.unexpected or 'none'}"
        )
    if frozen:
        encoder.freeze()
