"""From the choices of pretrain/params.yaml to a model and the samples that it is told."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt

from pipeline.common.params import Section
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.batches import Form
from pipeline.pretrain.build import build_image_autoencoder, build_video_autoencoder
from pipeline.pretrain.manifest import RENDERED, Data
from pipeline.pretrain.recipe import ModelSizes, Recipe
from pipeline.pretrain.sources import Pictures, SampleSource, ShardClips
from pipeline.pretrain.video_clips import ClipSettings, VideoClips

Method = Literal["videomae", "mae"]

# As people call them.
METHODS: dict[Method, str] = {"videomae": "VideoMAE", "mae": "MAE"}


class Choices(Section):
    """What tells pre-trainings apart: the lines on top of pretrain/params.yaml."""

    method: Method
    model: str
    data: Data
    recipe: str
    seed: NonNegativeInt


def build_autoencoder(
    method: Method, sizes: ModelSizes, recipe: Recipe, clips: ClipSettings, start: Path | None
) -> MaskedAutoencoder:
    """The model that a pre-training begins with.

    Raises:
        ValueError: See `build_video_autoencoder`.
    """
    if method == "mae":
        return build_image_autoencoder(
            sizes.mae, mask_ratio=recipe.mask_ratio, checkpointing=recipe.checkpointing, start=start
        )
    return build_video_autoencoder(
        sizes.videomae,
        num_frames=clips.num_frames,
        mask_ratio=recipe.mask_ratio,
        checkpointing=recipe.checkpointing,
        start=start,
    )


def form_of(method: Method, model: MaskedAutoencoder, clips: ClipSettings) -> Form:
    """What a model is told of a sample: a clip, or a single frame or picture."""
    num_frames = clips.num_frames if method == "videomae" else 0
    return Form(num_frames, model.encoder.size.image_size, model.masking)


class SampleFolders:
    """Where the samples of a collection are.

    Args:
        data: Of what kind.
        source: As params.yaml names it.
        folder: Of the collection.
        clips: Which clips of a video.
    """

    def __init__(self, data: Data, source: Path, folder: Path, clips: ClipSettings) -> None:
        self.data = data
        self.source = source
        self.folder = folder
        self.clips = clips

    def open(self, part: str, form: Form, side: int, keep_bytes: int) -> SampleSource:
        """The samples of a part.

        Args:
            part: `train` or `held_out`.
            form: What the model is told of them.
            side: See `AugmentSettings.side_before`.
            keep_bytes: See `VideoClips`.

        Raises:
            ValueError: Pictures have no frames to make clips of.
        """
        if self.data == "images":
            if form.num_frames:
                raise ValueError(
                    "method: videomae learns from clips, and data: images has single pictures; "
                    "take method: mae, or data: videos"
                )
            return Pictures(self._files(), self.folder, part, side=side)
        num_frames = form.num_frames or 1
        if self.data == "shards":
            return ShardClips(self.source, self.folder, part, num_frames=num_frames, side=side)
        return VideoClips(
            self._files(),
            self.folder,
            part,
            self.clips,
            num_frames=num_frames,
            side=side,
            keep_bytes=keep_bytes,
        )

    def _files(self) -> Path:
        if self.data == "rendered":
            return self.folder / RENDERED
        return self.source if self.source.is_dir() else self.source.parent
