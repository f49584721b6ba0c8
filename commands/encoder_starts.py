"""The encoders that `commands.encoders` compares: their weights, sizes and costs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from pipeline.acquire.weights import provide, read_card
from pipeline.common.encoder_weights import card_in, checkpoint_in, history_in
from pipeline.common.hosts import RetryPolicy
from pipeline.models.encoder import EncoderSize
from pipeline.models.jepa import JepaSize
from pipeline.models.video_encoders import VideoEncoderSize


class Start(NamedTuple):
    """An encoder that is compared.

    Attributes:
        name: Of its row.
        folder: Of its weights, as `provide` makes it.
        model: The preset of its size.
        size: Of it.
    """

    name: str
    folder: Path
    model: str
    size: EncoderSize | JepaSize

    @property
    def weights(self) -> Path | None:
        """None where it is random."""
        return checkpoint_in(self.folder)


class Cost(NamedTuple):
    """What it takes to have an encoder's tokens.

    Attributes:
        num_parameters: Of the encoder.
        clip_seconds: To read a clip, encode it and store its tokens; mean over all clips.
        clip_bytes: Of a clip's stored tokens and targets.
        device: On which that was measured.
    """

    num_parameters: int
    clip_seconds: float
    clip_bytes: int
    device: str


def starts(
    names: Sequence[str], document: dict[str, Any], scratch: Path, *, accept_licence: bool
) -> Iterator[Start]:
    """The encoders in turn; weights are fetched where they have to be.

    Args:
        names: As `encoder.weights` has them, each with or without `=` and a preset of `models`.
        document: The whole of params.yaml.
        scratch: For their folders.
        accept_licence: Whether the user accepts those of the weights.

    Raises:
        ValueError: There is no such preset.
    """
    for word in names:
        name, _, model = word.partition("=")
        source = Path("weights") / name
        card = read_card(source)
        model = model or (card.model if card else document["model"])
        if model not in document["models"]:
            known = ", ".join(document["models"])
            raise ValueError(f"{word}: there is no model {model!r}; known are {known}")
        folder = scratch / "weights" / name
        provide(
            source,
            folder,
            Path("downloads/weights"),
            accept_licence=accept_licence,
            policy=RetryPolicy(),
            hugging_face=document["encoder"]["hugging_face"],
        )
        size = document["models"][model]["encoder"]
        yield Start(word, folder, model, TypeAdapter(VideoEncoderSize).validate_python(size))


def facts(start: Start, cost: Cost) -> dict[str, str]:
    """Of an encoder, for its row: what it is, what it costs and what is known of it."""
    card, history = card_in(start.folder), history_in(start.folder)
    random = start.weights is None
    return {
        "model": start.model,
        "parameters (M)": f"{cost.num_parameters / 1e6:.3g}",
        "s per clip": f"{cost.clip_seconds:.3g}",
        "MB per clip": f"{cost.clip_bytes / 1e6:.3g}",
        "licence": "none: random" if random else card.get("licence", "not known here"),
        "seen": "nothing" if random else history.in_words().removeprefix("has seen "),
    }
