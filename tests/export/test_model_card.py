from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import NEW
from small_predictor import CLASSES, save_small_model

from pipeline.export.model_card import data_licence, model_card, read_scores
from pipeline.mtcae.saved import load_model

ENCODER = {
    "name": "marlin-base",
    "licence": "CC BY-NC 4.0",
    "page": "https://example.org/marlin",
    "history": NEW.model_dump(),
}


def write_fold(folder: Path, fold: int, right: int, *, seed: int = 1) -> Path:
    """A model that was right about so many of 12 clips of 6 subjects."""
    save_small_model(folder, dataset="ravdess", fold=fold, seed_of_training=seed, encoder=ENCODER)
    actual = CLASSES * 4
    table = pd.DataFrame(
        {
            "fold": fold,
            "clip": [f"{fold}-{i}" for i in range(12)],
            "subject": [f"{fold}-{i // 2}" for i in range(12)],
            "actual": actual,
            # Whoever is wrong takes the next class.
            "predicted": [*actual[:right], *np.roll(actual, -1)[right:]],
        }
    )
    table.to_parquet(folder / "predictions.parquet")
    return folder


def test_scores_are_those_of_the_fold_and_of_its_experiment(tmp_path: Path) -> None:
    folder = write_fold(tmp_path / "fold1", 1, right=12)
    write_fold(tmp_path / "fold2", 2, right=6)
    write_fold(tmp_path / "fold3", 3, right=0, seed=2)  # Another experiment's.
    scores = read_scores(folder)
    assert scores is not None
    assert (scores.uar.value, scores.clips, scores.subjects) == (1, 12, 6)
    assert (scores.folds, scores.all_clips, scores.all_subjects) == ([1, 2], 24, 12)
    assert scores.pooled_uar.value == pytest.approx(0.75)
    assert 0.4 < scores.pooled_uar.low < 0.75 < scores.pooled_uar.high <= 1
    assert np.isnan(scores.uar.low)  # of six subjects
    save_small_model(tmp_path / "new")
    assert read_scores(tmp_path / "new") is None


def test_a_card_tells_data_scores_licences_and_misuse(tmp_path: Path) -> None:
    folder = write_fold(tmp_path / "fold1", 1, right=12)
    write_fold(tmp_path / "fold2", 2, right=6)
    _, metadata = load_model(folder / "model.safetensors")
    card = model_card(metadata, "cascaded vit", read_scores(folder), "Use it so.", ["No loss."])
    assert card.startswith("---\npipeline_tag: video-classification\n")
    for words in (
        "# MTCAE-DFER (cascaded vit), trained on ravdess",
        "happy, neutral, sad",
        "Use it so.",
        "Measured of these files: No loss.",
        "UAR of this model: 100.0% (no interval: it takes 10 subjects, and here are 6) on 12 clips",
        "UAR of the experiment, over its folds 1, 2: 75.0% (95 % interval over subjects ",
        "- Data: RAVDESS (Livingstone and Russo 2018, Zenodo record 1188976) is published under CC",
        "- Encoder: CC BY-NC 4.0 (https://example.org/marlin)",
        "## What it must not be used for",
    ):
        assert words in card
    untested = model_card(metadata, "cascaded vit", None, "Use it so.", [])
    assert "Not tested" in untested
    assert "Measured" not in untested


def test_the_licence_of_unknown_clips_is_for_their_owner_to_write() -> None:
    assert "write here" in data_licence("custom")
    assert "public-domain photograph" in data_licence("sample")
