"""The training of a model as its recipe has it: what starts where, and what is read and trained."""

import math
from collections.abc import Callable
from itertools import islice
from typing import Annotated, NamedTuple

from lightning_fabric import seed_everything
from torch import nn
from torch.optim import AdamW

from pipeline.common.encoder_weights import checkpoint_in
from pipeline.common.frames import FaceSettings, FrameSettings
from pipeline.common.params import Preset, StageParams
from pipeline.feed.batches import BatchPlan, LabelledSource, TrainingBatches
from pipeline.feed.order import Rank
from pipeline.models.start import token_origin
from pipeline.mtcae.fold_data import FoldData
from pipeline.mtcae.loss import LossSettings, in_fractions
from pipeline.mtcae.model import MTCAE, ModelSize
from pipeline.mtcae.recipe import Recipe, build_model
from pipeline.mtcae.structures import Choices
from pipeline.training.optim import adamw

# Without workers decoding delays the training; of a small data set it is then done once.
KEEP_BYTES = 256 * 2**20
# Clips from which the variance of boxes and points is taken.
SCALE_CLIPS = 256


class TrainingParams(Choices, StageParams):
    """All of params.yaml that decides what a training does."""

    # Saved with the model too, so that a video can be read as the training clips were.
    frames: FrameSettings
    faces: FaceSettings
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]
    models: Annotated[ModelSize, Preset("models", chosen_by="model")]
    recipes: Annotated[Recipe, Preset("recipes", chosen_by="recipe")]


def start_model(params: TrainingParams, data: FoldData) -> MTCAE:
    """The model before its training; all that is random starts from the seed."""
    seed_everything(params.seed, verbose=False)
    return build_model(
        params.structure,
        params.models,
        params.recipes.encoder,
        checkpoint_in(data.start),
        num_frames=params.frames.num_frames,
        num_classes=len(params.classes),
    )


class Assembly(NamedTuple):
    """What a training consists of, but for its task and its schedule.

    Attributes:
        trained: The model; of stored tokens its decoders alone.
        batches: Of this device.
        loss: Of the recipe, with errors measured in what the clips' boxes and points vary by.
        optimizer: Over all that is trained.
        open_part: The clips of a part of the fold, as the model reads them.
    """

    trained: nn.Module
    batches: TrainingBatches
    loss: LossSettings
    optimizer: AdamW
    open_part: Callable[[str], LabelledSource]


def assemble(params: TrainingParams, rank: Rank, data: FoldData, model: MTCAE) -> Assembly:
    """Put the training of a model on the clips of part `train` together."""
    recipe, engine = params.recipes, params.recipes.engine
    stored = not recipe.why_tokens_vary(params.frames.segments)
    # Of stored tokens the decoders are trained alone.
    trained = model.tasks if stored else model

    def open_part(part: str) -> LabelledSource:
        if stored:
            weights = checkpoint_in(data.start)
            origin = token_origin(model.encoder, weights, engine.precision)
            return data.stored_tokens(part, classes=params.classes, origin=origin)
        return data.frames(
            part,
            classes=params.classes,
            image_size=model.encoder.size.image_size,
            segments=params.frames.segments,
            keep_bytes=0 if engine.num_workers else KEEP_BYTES,
        )

    if engine.compile:
        # Every size of a batch, of which there are few, gets kernels of its own.
        trained.compile(dynamic=False)
    source = open_part("train")
    plan = BatchPlan(
        batch_size=engine.batch_size,
        class_balanced=engine.class_balanced,
        min_steps=engine.min_steps,
        seed=params.seed,
        rank=rank,
        num_workers=engine.num_workers,
    )
    batches = TrainingBatches(source, recipe.augment, plan)
    # The same batches on every device.
    alone = TrainingBatches(source, recipe.augment, plan._replace(rank=Rank(), num_workers=0))
    every = alone.starting_at(epoch=1, step=0)
    some = islice(every, min(math.ceil(SCALE_CLIPS / engine.batch_size), batches.steps_per_epoch))
    optimizer = adamw(
        trained, recipe.optimizer, (lambda name: 0) if stored else model.layers_from_output
    )
    return Assembly(trained, batches, in_fractions(recipe.loss, some), optimizer, open_part)
