"""Heads that are trained on the tokens of a frozen encoder; `commands.encoders` compares some."""

import io
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple

import pandas as pd
import torch
from lightning_fabric import Fabric, seed_everything
from torch import Tensor
from tqdm import tqdm

from commands.encoder_starts import Cost, Start
from pipeline.common.clips import StoredClip
from pipeline.common.encoder_weights import history_in
from pipeline.common.frames import FrameSettings
from pipeline.common.params import Preset, StageParams
from pipeline.evaluation.comparison import System
from pipeline.feed.batches import BatchPlan, TrainingBatches, evaluation_batches
from pipeline.feed.loader import load_in_order
from pipeline.feed.order import Rank
from pipeline.folds.folds import Fold, read_fold, refuse_leaks
from pipeline.folds.seen import refuse_seen
from pipeline.models.start import EncoderTraining, build_encoder, token_origin, why_tokens_vary
from pipeline.models.video_encoders import VideoEncoder
from pipeline.mtcae.loss import in_fractions
from pipeline.mtcae.model import MTCAE, ModelSize
from pipeline.mtcae.predictions import evaluate
from pipeline.mtcae.recipe import Recipe
from pipeline.mtcae.results import fold_result
from pipeline.mtcae.structures import Choices
from pipeline.mtcae.task import MTCAETask
from pipeline.store.folders import LocalShards, read_clips
from pipeline.store.stored_frames import StoredFrames
from pipeline.store.tokens import Origin, StoredTokens, new_tokens, token_record, write_tokens
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.loop import train
from pipeline.training.optim import adamw, make_schedule

# Clips that are encoded, and heads' answers that are taken, at once.
_ENCODED, _TESTED = 16, 64
_FROZEN = EncoderTraining(mode="frozen", drop_path=0.0, checkpointing=False)
_RANDOM = EncoderTraining(mode="full", drop_path=0.0, checkpointing=False)


class Params(Choices, StageParams):
    """What is read of params.yaml."""

    folds: list[int]
    frames: FrameSettings
    classes: Annotated[list[str], Preset("datasets", chosen_by="dataset", key="classes")]
    models: Annotated[ModelSize, Preset("models", chosen_by="model")]
    recipes: Annotated[Recipe, Preset("recipes", chosen_by="recipe")]


class Probed(NamedTuple):
    """An encoder's tokens of all clips, and the encoder."""

    encoder: VideoEncoder
    tokens: Path
    origin: Origin
    cost: Cost


class Probe:
    """Trains heads on tokens.

    Args:
        params: Of the data set, the heads and their training.
        data: Folder of shards and folds.
        seeds: Of the trainings.
        scratch: A folder for what is not kept.

    Raises:
        ValueError: The recipe changes clips, so that an encoder has no one answer, or a subject is
            in two parts of a fold.
    """

    def __init__(self, params: Params, data: Path, seeds: Sequence[int], scratch: Path) -> None:
        recipe = params.recipes
        changes = recipe.augment.changes + recipe.mix.changes
        views = params.frames.segments * recipe.evaluation.crops
        if reason := why_tokens_vary(_FROZEN, changes, num_views=views):
            raise ValueError(f"the recipe {params.recipe} cannot be probed with: {reason}")
        self.params = params
        self.seeds = seeds
        self.scratch = scratch
        self.shards = LocalShards(data / "shards" / params.dataset)
        self.clips: list[StoredClip] = read_clips(self.shards)
        table = data / "folds" / f"{params.dataset}.csv"
        self.folds: list[Fold] = [read_fold(table, number) for number in params.folds]
        for fold in self.folds:
            refuse_leaks(fold, self.clips)
        self.fabric = Fabric(accelerator="auto", devices=1, precision=recipe.engine.precision)

    def system(self, start: Start) -> tuple[System, Cost]:
        """Predictions of all folds for every seed, and what the tokens cost.

        Raises:
            ValueError: The weights do not fit, or have seen who is tested.
        """
        for fold in self.folds:
            refuse_seen(history_in(start.folder), self.params.dataset, fold, self.clips)
        trainings = []
        probed = None
        bar = tqdm(total=len(self.seeds) * len(self.folds), desc=start.name, unit="training")
        for seed in self.seeds:
            if probed is None or not start.weights:
                probed = self.encode(start, self.scratch / "tokens", seed)
            tables = []
            for fold in self.folds:
                with redirect_stdout(io.StringIO()):
                    tables.append(self.train_heads(probed, fold, seed))
                bar.update()
            trainings.append(pd.concat(tables, ignore_index=True))
        bar.close()
        assert probed
        return System(start.name, start.name, trainings, self.seeds), probed.cost

    def encode(self, start: Start, out: Path, seed: int) -> Probed:
        """Tokens of all clips by an encoder, which is random where there are no weights."""
        seed_everything(seed, verbose=False)
        weights = start.weights
        training = _FROZEN if weights else _RANDOM
        encoder = build_encoder(start.size, self.params.frames.num_frames, training, weights)
        encoder.freeze()
        frames = StoredFrames(
            self.shards,
            self.clips,
            classes=self.params.classes,
            image_size=encoder.size.image_size,
        )
        module = self.fabric.setup(encoder)

        @torch.inference_mode()
        def encode(inputs: Tensor) -> Tensor:
            tokens: Tensor = module(inputs.to(self.fabric.device))
            return tokens

        origin = token_origin(encoder, weights, self.params.recipes.engine.precision)
        origin = origin._replace(weights=origin.weights or f"random, seed {seed}")
        batches = load_in_order(frames, batch_size=_ENCODED)
        record = token_record(encoder.num_frames, encoder.num_tokens, encoder.size.dim)
        before = time.perf_counter()
        with new_tokens(out, self.clips, origin):
            write_tokens(out, self.clips, batches, encode, record)
        cost = Cost(
            num_parameters=sum(parameter.numel() for parameter in encoder.parameters()),
            clip_seconds=(time.perf_counter() - before) / len(self.clips),
            clip_bytes=record.itemsize,
            device=_name(self.fabric.device),
        )
        return Probed(encoder, out, origin, cost)

    def train_heads(self, probed: Probed, fold: Fold, seed: int) -> pd.DataFrame:
        """Predictions of the fold's test clips by heads of their best epoch."""
        params, recipe, engine = self.params, self.params.recipes, self.params.recipes.engine
        seed_everything(seed, verbose=False)
        model = MTCAE(
            probed.encoder,
            params.structure,
            params.models.decoder,
            num_classes=len(params.classes),
        )
        heads = model.tasks

        def part(name: str) -> StoredTokens:
            rows = fold.rows(self.clips, name)
            return StoredTokens(
                probed.tokens, self.clips, rows, classes=params.classes, origin=probed.origin
            )

        batches = TrainingBatches(
            part("train"),
            recipe.augment,
            BatchPlan(
                batch_size=engine.batch_size,
                class_balanced=engine.class_balanced,
                min_steps=engine.min_steps,
                seed=seed,
                rank=Rank(),
                num_workers=0,
            ),
        )
        loss = in_fractions(recipe.loss, islice(batches.starting_at(1, 0), batches.steps_per_epoch))
        task = MTCAETask(
            loss,
            recipe.mix,
            num_classes=len(params.classes),
            seed=seed,
            validation=evaluation_batches(
                part("validation"), batch_size=_TESTED, rank=Rank(), num_workers=0
            ),
        )
        optimizer = adamw(heads, recipe.optimizer)
        schedule = make_schedule(
            recipe.schedule,
            optimizer,
            epochs=engine.epochs,
            steps_per_epoch=batches.steps_per_epoch,
        )
        with tempfile.TemporaryDirectory(dir=self.scratch) as scratch:
            checkpoints = Checkpoints(Path(scratch))
            train(
                self.fabric,
                heads,
                optimizer,
                schedule,
                task,
                batches,
                engine,
                checkpoints,
                lambda row: None,
            )
            checkpoints.remove()
        test = evaluation_batches(part("test"), batch_size=_TESTED, rank=Rank(), num_workers=0)
        tested = evaluate(self.fabric, heads, test, loss)
        times = {clip.clip: clip.times for clip in self.clips}
        return fold_result(tested, fold.number, params.classes, times, None).predictions


def _name(device: torch.device) -> str:
    """Of a device, as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of {platform.processor() or platform.machine()}"
