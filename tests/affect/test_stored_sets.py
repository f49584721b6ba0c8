from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.affect import decoding
from pipeline.affect.choices import SetName
from pipeline.affect.cnn import CNNSettings, FrozenCNN, ScoreTable
from pipeline.affect.cnn_files import CNNCard, save_cnn
from pipeline.affect.cnn_stored import open_stored, read_record, store_cnn
from pipeline.affect.decoding import store_pictures
from pipeline.affect.labels import EXPRESSIONS, LabelledImage, Labels
from pipeline.affect.sets import read_set, settings_of
from pipeline.affect.stored import SetCard, read_stored, write_card
from pipeline.common.encoder_weights import History
from pipeline.store.batch import Batch

SIDE = 8


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quicker than to start others."""
    monkeypatch.setattr(
        decoding, "map_in_processes", lambda function, items, *_, **__: map(function, items)
    )


def pictures(folder: Path, count: int = 5) -> list[LabelledImage]:
    """Squares of one grey each; the third file is no picture."""
    (folder / "v").mkdir()
    found = []
    for i in range(count):
        path = f"v/{i}.png"
        Image.new("RGB", (SIDE, SIDE), (40 * i,) * 3).save(folder / path)
        found.append(LabelledImage(f"v_{i}", path, "v", "", Labels(valence=i / 10), i + 2))
    (folder / "v/2.png").write_bytes(b"nothing")
    return found


def test_a_picture_that_cannot_be_read_leaves_the_others_in_their_order(tmp_path: Path) -> None:
    good, broken = store_pictures(tmp_path / "out", tmp_path, pictures(tmp_path), SIDE)
    assert [one.image.line for one in broken] == [4]
    write_card(tmp_path / "out", SetCard(identity="x", classes=EXPRESSIONS, side=SIDE))
    stored = read_stored(tmp_path / "out")
    assert stored.images == good
    assert stored.pixels.shape == (4, SIDE, SIDE, 3)
    assert stored.pixels[:, 0, 0, 0].tolist() == [0, 40, 120, 160]


def test_folders_of_two_parts_have_ids_of_their_own(tmp_path: Path) -> None:
    for part in ("training", "validation"):
        for name in ("ANGRER", "HAPPINESS"):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "1.jpg").touch()
    settings = settings_of("lsd", {"train": "training", "validation": "validation"})
    found = read_set("lsd", settings, tmp_path, tmp_path / "out")
    images = [image for listing in found.listings.values() for image in listing.images]
    assert len({image.id for image in images}) == len({image.group for image in images}) == 4
    assert [(image.part, image.labels.expression) for image in images] == [
        ("train", "angry"),
        ("train", "happy"),
        ("validation", "angry"),
        ("validation", "happy"),
    ]


@pytest.mark.parametrize("name", ["s_aff_wild2", "lsd"])
def test_a_set_that_is_not_there_is_named(name: SetName, tmp_path: Path) -> None:
    values = {"s_aff_wild2": {"test_list": ""}, "lsd": {"train": "a", "validation": "b"}}[name]
    with pytest.raises(ValueError, match="is not there"):
        read_set(name, settings_of(name, values), tmp_path, tmp_path / "out")


def test_stored_scores_are_those_of_the_cnn_and_a_table_has_none_of_a_view(tmp_path: Path) -> None:
    good, _ = store_pictures(tmp_path / "out", tmp_path, pictures(tmp_path), SIDE)
    write_card(tmp_path / "out", SetCard(identity="x", classes=EXPRESSIONS, side=SIDE))
    stored = read_stored(tmp_path / "out")
    settings = CNNSettings(
        weights="cnn.safetensors", family="auto", classes=(), size=0, normalisation="imagenet"
    )
    from timm import create_model

    network: nn.Module = create_model("test_resnet", num_classes=2)
    seen = History.empty().with_groups("people", ["a"])
    card = CNNCard(
        family="timm:test_resnet",
        classes=("angry", "happy"),
        size=32,
        normalisation="imagenet",
        history=seen,
    )
    save_cnn(tmp_path / "cnn.safetensors", network, card)
    store_cnn(tmp_path / "cnn", settings, tmp_path / "cnn.safetensors", seen, [stored])
    assert read_record(tmp_path / "cnn").history == seen
    once = open_stored(tmp_path / "cnn", good, "once")
    view = open_stored(tmp_path / "cnn", good, "view")
    assert isinstance(once, ScoreTable)
    assert isinstance(view, FrozenCNN)
    pixels = torch.from_numpy(np.array(stored.pixels)).permute(0, 3, 1, 2)
    batch = Batch([image.id for image in good], ["v"] * 4, pixels, {})
    torch.testing.assert_close(once(batch), view(batch), rtol=1e-5, atol=1e-5)
    # As a table, which a user may have of any CNN.
    rows = once(batch).numpy()
    table = pd.DataFrame(rows, columns=["angry", "happy"])
    table.insert(0, "path", [image.path for image in good])
    table.to_csv(tmp_path / "scores.csv", index=False)
    again = settings.model_copy(update={"weights": "scores.csv", "family": "scores"})
    store_cnn(tmp_path / "table", again, tmp_path / "scores.csv", seen, [stored])
    np.testing.assert_allclose(open_stored(tmp_path / "table", good, "once")(batch), rows)
    with pytest.raises(ValueError, match="take cnn_scores: once"):
        open_stored(tmp_path / "table", good, "view")
