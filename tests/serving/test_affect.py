from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image
from small import FRAMES
from small_affect import SIDE, affect_params, save_affect_model, save_small_cnn
from small_predictor import HEIGHT, WIDTH, render_film, save_small_model
from torch import Tensor

from pipeline.affect.cnn_stored import read_record
from pipeline.affect.cotex import MaskedCoTEX
from pipeline.affect.emma import EMMA
from pipeline.affect.labels import AUS, EXPRESSIONS
from pipeline.common.files import write_json
from pipeline.serving.affect import AffectModels
from pipeline.serving.aligned import ARCFACE, RENDERED, Points, aligned_square
from pipeline.serving.answers import LANDMARKS
from pipeline.serving.face_models import Sighting
from pipeline.serving.predictor import load_model
from pipeline.serving.windows import WindowChoice
from pipeline.video.crops import cut
from pipeline.video.film import Film

CPU, NOWHERE = "cpu", Path("nowhere")
UNITS = [f"au{number}" for number in AUS]
ACTIVE = [f"au{number}_active" for number in AUS]
EXPRESSION = [f"affect_probability_{name}" for name in EXPRESSIONS]


def noise_face(seed: int, template: Points) -> Sighting:
    """A picture that is an aligned face already."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (14, 14, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((112, 112), Image.Resampling.BILINEAR))
    points = np.zeros((5, 2))
    points[: len(template)] = 112 * template
    return Sighting(picture, points)


def stored(face: npt.NDArray[np.uint8]) -> Tensor:
    """(1, 3, 48, 48), as the stage faces scales a file of 112 pixels."""
    small = Image.fromarray(face).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None]


@torch.no_grad()
def by_hand(model: EMMA, face: npt.NDArray[np.uint8], scores: Tensor) -> list[float]:
    """Expression, valence, arousal, action units of an aligned face."""
    said = model(stored(face)[..., 8:40, 8:40], scores)
    parts = [said.expression[0].softmax(0), said.valence_arousal[0], said.aus[0].sigmoid()]
    return torch.cat(parts).tolist()


@pytest.mark.parametrize("name", ["rendered", "s_aff_wild2"])
def test_an_aligned_face_is_asked_about_as_a_picture_of_the_set(name: str, tmp_path: Path) -> None:
    model = save_affect_model(tmp_path / "run", affect_params(set=name))
    assert isinstance(model, EMMA)
    faces = [noise_face(seed, RENDERED if name == "rendered" else ARCFACE) for seed in (1, 2)]
    models = AffectModels([tmp_path / "run"], NOWHERE, CPU)
    rows = models.ask(faces)
    expected = [by_hand(model, face.picture, torch.zeros(1, 0)) for face in faces]
    np.testing.assert_allclose(rows[:, 1:-12], expected, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 0.01
    said = (*EXPRESSION, "valence", "arousal", *UNITS)
    assert models.columns.names == ("affect_label", *said, *ACTIVE)
    assert rows[:, 0].tolist() == np.argmax(rows[:, 1:9], axis=1).tolist()


@pytest.mark.parametrize(("how", "side"), [("once", SIDE), ("view", 32)])
def test_the_cnn_looks_at_the_face_as_in_the_training(how: str, side: int, tmp_path: Path) -> None:
    cnn, network = save_small_cnn(tmp_path / "cnn", side)
    params = affect_params(va_input="both", cnn_scores=how)
    model = save_affect_model(
        tmp_path / "run", params, cnn, digest=read_record(tmp_path / "cnn").digest
    )
    assert isinstance(model, EMMA)
    face = noise_face(1, RENDERED)
    shown = stored(face.picture) if how == "once" else stored(face.picture)[..., 8:40, 8:40]
    with torch.no_grad():
        scores = network((shown / 255 - 0.5) / 0.5)
    (row,) = AffectModels([tmp_path / "run"], tmp_path / "cnn", CPU).ask([face])
    np.testing.assert_allclose(row[1:-12], by_hand(model, face.picture, scores), atol=1e-5)
    without = by_hand(model, face.picture, torch.zeros(1, 3))
    assert abs(row[9:11] - without[8:10]).max() > 0.01


def test_units_are_active_from_the_thresholds_of_the_training_on(tmp_path: Path) -> None:
    face = noise_face(1, RENDERED)
    for name, threshold in (("low", 0.2), ("high", 0.6)):
        save_affect_model(tmp_path / name, affect_params(), threshold=threshold)
    (low,) = AffectModels([tmp_path / "low"], NOWHERE, CPU).ask([face])
    units = low[-24:-12]
    assert (units < 0.4).any()
    assert ((units >= 0.4) & (units < 0.6)).any()
    assert low[-12:].tolist() == (units >= 0.2).tolist()
    # Models that answer together have the means of their probabilities and of their thresholds.
    (both,) = AffectModels([tmp_path / "low", tmp_path / "high"], NOWHERE, CPU).ask([face])
    assert both[-12:].tolist() == (units >= 0.4).tolist()
    write_json(tmp_path / "low/tuning.json", {"thresholds": {"1": 0.5}, "radius": 0})
    with pytest.raises(ValueError, match=r"tuning.json does not give a threshold for each of the"):
        AffectModels([tmp_path / "low"], NOWHERE, CPU)


@pytest.mark.parametrize("system", ["cotex", "single"])
def test_a_model_of_expressions_says_nothing_else(system: str, tmp_path: Path) -> None:
    model = save_affect_model(tmp_path / "run", affect_params(system=system))
    assert isinstance(model, MaskedCoTEX)
    face = noise_face(1, RENDERED)
    models = AffectModels([tmp_path / "run"], NOWHERE, CPU)
    assert models.columns.names == ("affect_label", *EXPRESSION)
    with torch.no_grad():
        logits = model(stored(face.picture)[..., 8:40, 8:40]).sum(dim=0)[0]
    (row,) = models.ask([face])
    np.testing.assert_allclose(row[1:], logits.softmax(0).numpy(), atol=1e-6)


def test_what_cannot_be_asked_is_refused_with_the_reason(tmp_path: Path) -> None:
    cnn, _ = save_small_cnn(tmp_path / "cnn")
    save_affect_model(
        tmp_path / "reads",
        affect_params(va_input="both"),
        cnn,
        digest=read_record(tmp_path / "cnn").digest,
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/card.json").write_text(
        (tmp_path / "cnn/card.json").read_text("utf-8"), "utf-8"
    )
    with pytest.raises(ValueError, match=r"reads the scores of a CNN, and .*empty holds none"):
        AffectModels([tmp_path / "reads"], tmp_path / "empty", CPU)
    with pytest.raises(ValueError, match=r"reads the scores of a CNN, and nowhere holds none"):
        AffectModels([tmp_path / "reads"], NOWHERE, CPU)
    save_small_cnn(tmp_path / "cnn4", num_classes=4)
    with pytest.raises(ValueError, match=r"reads was trained with the scores of another CNN"):
        AffectModels([tmp_path / "reads"], tmp_path / "cnn4", CPU)
    save_affect_model(tmp_path / "other", affect_params(system="single"))
    runs = [tmp_path / "reads", tmp_path / "other"]
    with pytest.raises(ValueError, match=r"reads and .*other cannot answer together"):
        AffectModels(runs, tmp_path / "cnn", CPU)
    save_small_model(tmp_path / "fold1")
    with pytest.raises(ValueError, match="fold1 is no affect model"):
        AffectModels([tmp_path / "fold1"], NOWHERE, CPU)
    frames = FRAMES.model_copy(update={"num_frames": 4, "crop": "none"}).model_dump()
    save_small_model(tmp_path / "whole", frames=frames)
    models = AffectModels([tmp_path / "other"], NOWHERE, CPU)
    with pytest.raises(ValueError, match=r"whole was trained with frames.crop: none"):
        load_model(tmp_path / "whole", face_models=models)


def faces_of(table: pd.DataFrame, film: Path, num_points: int) -> Sequence[npt.NDArray[np.uint8]]:
    """The aligned face of every row, cut out of the film by the landmarks of the table."""
    shown = {round(at.seconds, 3): at.picture for at in Film(film, FRAMES).pictures(num_points)}
    points = table[list(LANDMARKS)].to_numpy().reshape(-1, 5, 2) * (WIDTH, HEIGHT)
    return [
        cut(shown[seconds][None], [aligned_square(own, RENDERED)], 112)[0]
        for seconds, own in zip(table["seconds"], points, strict=True)
    ]


def test_every_person_and_moment_of_a_film_has_the_mean_of_the_affect_models(
    tmp_path: Path,
) -> None:
    film = render_film(tmp_path / "film.mp4")
    save_small_model(tmp_path / "fold1")
    runs = [tmp_path / "affect1", tmp_path / "affect2"]
    models = [save_affect_model(run, affect_params(), seed=seed) for seed, run in enumerate(runs)]
    windows = WindowChoice(length=8, hop=4)
    plain = load_model(tmp_path / "fold1").predict(film, windows).table
    predictor = load_model(tmp_path / "fold1", face_models=AffectModels(runs, NOWHERE, CPU))
    table = predictor.predict(film, windows).table
    pd.testing.assert_frame_equal(table[plain.columns], plain)
    assert list(table) == predictor.columns()
    faces = faces_of(table, film, num_points=12)
    none = torch.zeros(1, 0)
    said = [[by_hand(one, face, none) for face in faces] for one in models if isinstance(one, EMMA)]
    expected = np.mean(said, axis=0)
    columns = [*EXPRESSION, "valence", "arousal", *UNITS]
    np.testing.assert_allclose(table[columns], expected, atol=1e-3)
    labels = [EXPRESSIONS[i] for i in table[EXPRESSION].to_numpy().argmax(axis=1)]
    assert table["affect_label"].tolist() == labels
    assert table["person"].nunique() > 1
    assert table[columns].std().max() > 0.005
