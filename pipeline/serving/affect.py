"""Affect models (pipeline/affect) as they are asked about the faces of a film.

A face is aligned as in the pictures of the training's set, and then treated like these in a test.
An action unit is active from the threshold on that the training chose for it (tuning.json). Numbers
are not smoothed over time: the radius that the training chose counts frames of its set's films, and
moments of a video are further apart or closer.

Shape letters: M models, B faces, C classes, U action units, F side of a set's picture in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pipeline.affect.choices import SetName
from pipeline.affect.cnn import NoCNN, ScoreSource
from pipeline.affect.cnn_files import open_scores
from pipeline.affect.cnn_stored import read_record
from pipeline.affect.cotex import CoTEXSettings, MaskedCoTEX
from pipeline.affect.emma import EMMA
from pipeline.affect.feed import Pictures
from pipeline.affect.labels import AUS, LabelledImage, Labels
from pipeline.affect.metrics import Numbers
from pipeline.affect.predictions import Asked, Evaluation, evaluation_of, expressions_of
from pipeline.affect.recipe import ModelPreset, Recipe, Start, build
from pipeline.affect.results import DESCRIPTION, MODEL, TUNING
from pipeline.affect.stored import SetCard, StoredSet
from pipeline.common.encoder_weights import CARD
from pipeline.common.strangers import read_json
from pipeline.models.tensor_files import fill, read_tensors
from pipeline.serving.aligned import ARCFACE, RENDERED, Points, aligned_square
from pipeline.serving.face_models import Array, FaceColumns, Sighting
from pipeline.video.crops import cut

Faces = npt.NDArray[np.uint8]
"""Aligned faces (B, F, F, 3), RGB."""

# F: s-Aff-Wild2 is published so, and `rendered` drawn so.
SIDE = 112
_TEMPLATES: dict[SetName, Points] = {
    "rendered": RENDERED,
    "s_aff_wild2": ARCFACE,
    "lsd": ARCFACE,
    "custom": ARCFACE,
}
# Faces that a model takes at once.
_BATCH = 64
# Values of va_input.
_READS_CNN = ("cnn_scores", "both")


@dataclass(frozen=True)
class AffectModel:
    """A trained model, and what its test did to pictures.

    Attributes:
        module: In evaluation mode.
        classes: C expressions.
        thresholds: (U,) probability from which on a unit is active.
        template: Where landmarks lie in the pictures of its set.
        cnn: Whose scores it reads.
        of_view: Whether these are of what the model sees, or of the whole picture.
        stored_side: Of the set's pictures as they were stored, in pixels.
        side: Of what the model sees, in pixels.
        crop: Side of the window that it sees over that of the picture.
        device: Where it runs.
    """

    module: EMMA | MaskedCoTEX
    classes: tuple[str, ...]
    thresholds: Numbers
    template: Points
    cnn: ScoreSource
    of_view: bool
    stored_side: int
    side: int
    crop: float
    device: torch.device

    @property
    def says_all(self) -> bool:
        """Whether it says valence, arousal and action units, too."""
        return isinstance(self.module, EMMA)

    def align(self, sightings: Sequence[Sighting]) -> Faces:
        """The faces as the pictures of its set show them."""
        return np.concatenate(
            [
                cut(one.picture[None], [aligned_square(one.points, self.template)], SIDE)
                for one in sightings
            ]
        )

    @torch.no_grad()
    def ask(self, faces: Faces) -> Evaluation:
        """What it says of aligned faces, as of test pictures of its set."""
        stored = np.stack([_resized(face, self.stored_side) for face in faces])
        images = [LabelledImage(str(i), "", "", "", Labels()) for i in range(len(faces))]
        card = SetCard(identity="", classes=self.classes, side=self.stored_side)
        rows = list(range(len(faces)))
        shown = Pictures(StoredSet(card, images, stored), rows, side=self.side, crop=self.crop)[
            rows
        ]
        batch = shown.to(self.device)
        if isinstance(self.module, MaskedCoTEX):
            views = self.module(batch.inputs).transpose(0, 1)
            return expressions_of(Asked(shown, (views.float().cpu(),)))
        whole = torch.from_numpy(stored).permute(0, 3, 1, 2).to(self.device)
        scores = self.cnn(batch if self.of_view else replace(batch, inputs=whole))
        said = self.module(batch.inputs, scores)
        return evaluation_of(Asked(shown, tuple(one.float().cpu() for one in said)))


class AffectModels:
    """Affect models that answer together, by their mean.

    Args:
        runs: Folders that stage train wrote, such as data/affect/runs/fold1-seed1.
        cnn: The folder of stage cnn that they were trained with; read only where they need it.
        device: Where they run.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: No model, one that cannot be read, or models that say different things.
    """

    def __init__(self, runs: Sequence[Path], cnn: Path, device: str) -> None:
        if not runs:
            raise ValueError("no affect model to ask")
        self.models = [open_affect_model(run, cnn, torch.device(device)) for run in runs]
        first = self.models[0]
        for run, model in zip(runs, self.models, strict=True):
            if (model.classes, model.says_all) != (first.classes, first.says_all):
                raise ValueError(
                    f"{runs[0]} and {run} cannot answer together: their systems or their classes "
                    "are not the same"
                )
        names = ["affect_label", *(f"affect_probability_{name}" for name in first.classes)]
        if first.says_all:
            names += ["valence", "arousal", *(f"au{number}" for number in AUS)]
            names += [f"au{number}_active" for number in AUS]
        self.columns = FaceColumns(tuple(names), first.classes)

    def ask(self, sightings: Sequence[Sighting], /) -> Array:
        """See `FaceModels`."""
        rows = [
            self._ask(sightings[start : start + _BATCH])
            for start in range(0, len(sightings), _BATCH)
        ]
        return np.concatenate([np.zeros((0, len(self.columns.names)), np.float32), *rows])

    def _ask(self, sightings: Sequence[Sighting]) -> Array:
        said = [model.ask(model.align(sightings)) for model in self.models]
        expression = np.mean([one.expression for one in said], axis=0)
        parts = [expression.argmax(axis=1)[:, None], expression]
        if self.models[0].says_all:
            aus = np.mean([one.aus for one in said], axis=0)
            thresholds = np.mean([model.thresholds for model in self.models], axis=0)
            parts += [
                np.mean([one.valence_arousal for one in said], axis=0),
                aus,
                aus >= thresholds,
            ]
        return np.concatenate(parts, axis=1).astype(np.float32)


def open_affect_model(run: Path, cnn: Path, device: torch.device) -> AffectModel:
    """What stage train of the affect models wrote.

    Args:
        run: Its folder.
        cnn: The folder of stage cnn; read only where the model needs it.
        device: Where the model runs.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: It is no affect model, or the CNN is not the one it was trained with.
    """
    described = read_json(run / DESCRIPTION)
    if not isinstance(described, dict) or "system" not in described:
        raise ValueError(
            f"{run} is no affect model: --affect takes what stage train of `make affect` wrote, "
            "such as data/affect/runs/fold1-seed1"
        )
    size = ModelPreset.model_validate(described["models"])
    recipe = Recipe.model_validate(described["recipes"])
    classes = tuple(described["classes"])
    reads_cnn = described["system"] == "emma" and described["va_input"] in _READS_CNN
    scores = _open_cnn(cnn, run, described["cnn_digest"]) if reads_cnn else NoCNN()
    start = Start(
        size, recipe, CoTEXSettings.model_validate(described["cotex"]), None, scores, seed=0
    )
    module = build(described["system"], described["va_input"], start, len(classes))
    fill(module, read_tensors(run / MODEL), str(run / MODEL))
    return AffectModel(
        module=module.to(device).eval(),
        classes=classes,
        thresholds=_thresholds(run / TUNING),
        template=_TEMPLATES[described["set"]],
        cnn=scores,
        of_view=recipe.cnn_scores == "view",
        stored_side=size.stored_side,
        side=size.encoder.image_size,
        crop=recipe.augment.crop,
        device=device,
    )


def _thresholds(tuning: Path) -> Numbers:
    """(U,) of the file that stage train wrote."""
    content = read_json(tuning)
    try:
        return np.array([content["thresholds"][str(number)] for number in AUS], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{tuning} does not give a threshold for each of the {len(AUS)} action units"
        ) from error


def _open_cnn(folder: Path, run: Path, digest: str) -> ScoreSource:
    record = read_record(folder) if (folder / CARD).is_file() else None
    if record is None or not (folder / record.settings.weights).is_file():
        raise ValueError(
            f"{run} reads the scores of a CNN, and {folder} holds none that could look at a video: "
            "name the folder of the training's CNN with --affect-cnn; a table of scores will not do"
        )
    if record.digest != digest:
        raise ValueError(
            f"{run} was trained with the scores of another CNN than that in {folder}: name the "
            "folder of its own with --affect-cnn"
        )
    return open_scores(record.settings, folder / record.settings.weights, [])


def _resized(face: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """As `read_picture` does it with a file of the set."""
    picture = Image.fromarray(face)
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture)
