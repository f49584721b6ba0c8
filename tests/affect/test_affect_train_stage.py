"""Stage train of the affect models on noise, without DVC."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from project import ROOT
from small import NEW

from pipeline.affect.choices import Choices
from pipeline.affect.cnn import CNNSettings
from pipeline.affect.cnn_stored import store_no_cnn
from pipeline.affect.fold_data import Inputs
from pipeline.affect.group_table import read_group_table
from pipeline.affect.image_folds import ImageFold, SplitSettings, make_folds, write_folds
from pipeline.affect.intervals import scores_of
from pipeline.affect.labels import AUS, EXPRESSIONS, LabelledImage, Labels
from pipeline.affect.stored import (
    CHALLENGE,
    IMAGES,
    SetCard,
    write_card,
    write_challenge_list,
    write_drawn,
)
from pipeline.common.encoder_weights import CARD, History
from pipeline.common.files import write_json
from stages.affect import aggregate, report, train
from stages.affect.train import Params

SIDE, IDENTITY = 16, "noise"


def images(flipped: bool = False) -> list[LabelledImage]:
    """Six groups of four; `flipped`: with other labels in the groups that are tested."""
    tested = make_folds(images(), SPLIT)[0].groups(images(), "test") if flipped else []
    random = np.random.default_rng(3)
    found = []
    for i in range(24):
        name, units = EXPRESSIONS[i % 4], tuple(bool(x) for x in random.random(len(AUS)) < 0.4)
        valence, arousal = random.uniform(-1, 1, 2).round(3).tolist()
        if f"g{i // 4}" in tested:
            name, units, valence = EXPRESSIONS[5], tuple(not x for x in units), -valence
        labels = Labels(name, valence, arousal, units)
        found.append(LabelledImage(f"i{i}", f"g{i // 4}/{i}.jpg", f"g{i // 4}", "", labels))
    return found


SPLIT = SplitSettings(protocol="folds", num_folds=2, validation_fraction=0.4, seed=1)


def params(**changes: Any) -> Params:
    document = yaml.safe_load((ROOT / "affect/params.yaml").read_text(encoding="utf-8"))
    document |= {"cnn": "none", "init": "random", "va_input": "vit_scores"} | changes
    encoder = {"image_size": SIDE, "patch_size": 8, "dim": 16, "depth": 1, "num_heads": 2}
    document["models"]["tiny"] |= {"stored_side": SIDE, "encoder": encoder}
    recipe = document["recipes"]["quick"]
    recipe["engine"] |= {"epochs": 2, "batch_size": 8, "micro_batch_size": 8}
    recipe["schedule"]["warmup_epochs"] = 1
    recipe["answers"]["smoothing"] = [0, 1]
    return Params.from_document(document)


def make_inputs(folder: Path, seen: History = NEW, *, flipped: bool = False) -> Inputs:
    """All that the stages before would have left."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)
    write_drawn(folder / "set", images(flipped), list(pixels))
    write_card(folder / "set", SetCard(identity=IDENTITY, classes=EXPRESSIONS, side=SIDE))
    challenge = [LabelledImage("c1", "t/1.jpg", "t", "", Labels())]
    write_drawn(folder / "set" / CHALLENGE, challenge, list(pixels[:1]))
    write_challenge_list(folder / "set" / CHALLENGE, ["t/1.jpg", "t/2.jpg", "t/1.jpg"])
    write_folds(folder / "folds.csv", images(), make_folds(images(), SPLIT))
    write_json(folder / "prior" / CARD, {"name": "none", "history": seen.model_dump()})
    nothing = CNNSettings(weights="", family="auto", classes=(), size=0, normalisation="imagenet")
    store_no_cnn(folder / "cnn", nothing)
    return Inputs(folder / "set", folder / "folds.csv", folder / "prior", folder / "cnn")


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, for scratch files and MLflow as well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_a_fold_is_trained_tested_and_answers_the_test_list(at: Path) -> None:
    train.main(params(), 1, 1, make_inputs(at), at / "out")
    table = pd.read_parquet(at / "out/predictions.parquet")
    fold = make_folds(images(), SPLIT)[0]
    assert sorted(set(table["group"])) == fold.groups(images(), "test")
    metrics = json.loads((at / "out/metrics.json").read_text("utf-8"))
    terms = (metrics[name] for name in ("va_ccc", "expression_f1", "au_f1"))
    assert metrics["p_mtl"] == pytest.approx(sum(terms))
    # One line for each listed one, also for a repeated and for a missing picture.
    lines = (at / "out/submission.txt").read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["t/1.jpg", "t/2.jpg", "t/1.jpg"]
    assert lines[1] == lines[3]
    assert len(lines[2].split(",")) == 16
    assert not list((at / ".scratch/affect").glob("*/state.pt"))


def test_thresholds_and_smoothing_do_not_see_the_labels_of_the_test(at: Path) -> None:
    for name, flipped in (("one", False), ("other", True)):
        (at / name).mkdir()
        train.main(params(), 1, 1, make_inputs(at / name, flipped=flipped), at / name / "out")
    files = [
        [(at / name / "out" / file).read_bytes() for file in ("tuning.json", "model.safetensors")]
        for name in ("one", "other")
    ]
    assert files[0] == files[1]
    scores = [(at / name / "out/metrics.json").read_bytes() for name in ("one", "other")]
    assert scores[0] != scores[1]


@pytest.mark.parametrize("system", ["cotex", "single"])
def test_expressions_alone_are_scored_alone(system: str, at: Path) -> None:
    train.main(params(system=system), 1, 1, make_inputs(at), at / "out")
    metrics = json.loads((at / "out/metrics.json").read_text("utf-8"))
    assert {"expression_f1", "best_epoch", "num_parameters"} == set(metrics)
    assert not (at / "out/submission.txt").exists()


@pytest.mark.parametrize("system", ["cotex", "emma"])
def test_every_system_reaches_the_tables(system: str, at: Path) -> None:
    inputs, out = make_inputs(at / "inputs"), at / "metrics"
    out.mkdir()
    for fold in (1, 2):
        train.main(params(system=system), fold, 7, inputs, at / f"runs/fold{fold}-seed7")
    choices = params(system=system)
    named = {name: getattr(choices, name) for name in Choices.model_fields}
    wanted = aggregate.Params(**named, folds=[1, 2], seeds=[7])
    aggregate.main(wanted, at / "runs", inputs.data / IMAGES, out)
    page = (out / "table.md").read_text(encoding="utf-8")
    assert ("| action unit | AU12 |" in page) == (system == "emma")
    assert "nan" not in page
    (sums,) = read_group_table(pd.read_parquet(out / "groups.parquet")).values()
    summary = json.loads((out / "summary.json").read_text())
    scores = scores_of(sums, np.ones((1, 6)))
    assert scores["expression_f1"][0] == pytest.approx(summary["expression_f1"], abs=1e-6)
    assert ("p_mtl" in summary) == (system == "emma")
    shown = report.Params(
        **named, folds=[1, 2], seeds=[7], report=report.ReportParams(frames=False)
    )
    report.main(shown, at / "runs", inputs.data, out, at / "report")
    assert "Most wrong" in (at / "report/index.html").read_text(encoding="utf-8")


def test_a_prior_that_has_seen_a_tested_group_is_refused(at: Path) -> None:
    tested = make_folds(images(), SPLIT)[0].groups(images(), "test")
    seen = NEW.with_groups(IDENTITY, tested[:1])
    with pytest.raises(SystemExit, match=rf"its prior has seen 1 of the .*\({tested[0]}\)"):
        train.main(params(), 1, 1, make_inputs(at, seen), at / "out")
    # The other fold does not test it.
    train.main(params(), 2, 1, make_inputs(at, seen), at / "out")


def test_a_tested_group_that_is_slipped_into_the_training_is_refused(at: Path) -> None:
    inputs = make_inputs(at)
    first = make_folds(images(), SPLIT)[0]
    slipped = next(name for name, part in first.parts.items() if part == "test")
    write_folds(inputs.folds, images(), [ImageFold(1, {**first.parts, slipped: "train"})])
    with pytest.raises(SystemExit, match="in another part as well"):
        train.main(params(), 1, 1, inputs, at / "out")
