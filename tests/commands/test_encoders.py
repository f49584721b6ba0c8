from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from project import ROOT
from small import baselines, video_encoder

from commands import encoders
from pipeline.acquire.weights import FROM_SCRATCH
from pipeline.common.clips import Clip, write_stored
from pipeline.common.encoder_weights import History
from pipeline.common.frames import FaceTrack
from pipeline.folds.folds import GroupFold, write_folds
from pipeline.models.encoder import TubeletEmbedding
from pipeline.pretrain.files import write_encoder
from pipeline.store.shards import write_shards
from pipeline.store.strips import encode_strip

CLASSES = ["dark", "light"]
SUBJECTS = "abcdefghijkl"
SIZE = {
    "image_size": 16, "patch_size": 8, "tubelet_size": 2, "dim": 16, "depth": 1, "num_heads": 2,
    "stem": "linear",
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set whose classes differ in brightness; two folds of twelve subjects."""
    monkeypatch.chdir(tmp_path)
    document: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    document["datasets"]["sample"]["classes"] = CLASSES
    document["frames"] |= {"num_frames": 4, "size": 16}
    document["folds"] = [1, 2]
    document["arch"] = "stl"
    document["models"]["tiny"]["encoder"] = SIZE
    rotary = {name: value for name, value in SIZE.items() if name != "stem"}
    document["models"]["turned"] = {"encoder": rotary | {"positions": "rotary"}}
    document["recipes"]["paper"]["engine"] |= {"epochs": 20, "precision": "32-true"}
    Path("params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    shards = Path("data/shards/sample")
    shards.mkdir(parents=True)
    track = FaceTrack(
        np.tile(np.array([2, 2, 12, 12], np.float32), (4, 1)),
        np.full((4, 5, 2), 8, np.float32),
        np.ones(4, bool),
    )
    random = np.random.default_rng(0)
    labelled = []
    for subject in SUBJECTS:
        for label, level in zip(CLASSES, (60, 190), strict=True):
            noise = random.integers(0, 40, (4, 16, 16, 3))
            strip = encode_strip((noise + level).astype(np.uint8), 95)
            clip = Clip(f"{subject}_{label}", "", subject, label, content=f"{subject}{label}")
            labelled.append((clip, strip, track))
    clips = write_shards(shards, labelled)
    write_stored(shards / "clips.parquet", clips)
    one, other = list(SUBJECTS[:6]), list(SUBJECTS[6:])
    folds = [GroupFold(1, one[:4], one[4:], other), GroupFold(2, other[:4], other[4:], one)]
    write_folds(Path("data/folds/sample.csv"), clips, folds)
    tested = pd.DataFrame(
        {
            "fold": [1 if clip.group in other else 2 for clip in clips],
            "clip": [clip.clip for clip in clips],
            "subject": [clip.group for clip in clips],
            "actual": [clip.label for clip in clips],
            "predicted": "dark",
        }
    ).sort_values("clip", ignore_index=True)
    Path("data/baselines").mkdir()
    baselines(tested, CLASSES).to_parquet("data/baselines/sample.parquet", index=False)
    weights = Path("weights")
    weights.mkdir()
    (weights / FROM_SCRATCH).write_text("no weights, but this file is never empty")
    return tmp_path


def save(name: str, history: History, scale: float) -> None:
    """An encoder whose tokens are about the brightness, or about nothing where the scale is 0."""
    encoder = video_encoder(dim=16, depth=1, num_heads=2, image_size=16, patch_size=8, num_frames=4)
    embedding = encoder.patch_embed
    assert isinstance(embedding, TubeletEmbedding)
    embedding.proj.weight.data *= scale
    write_encoder(Path("weights") / name, encoder, history)


def test_an_encoder_that_sees_the_difference_beats_one_that_sees_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save("blind.safetensors", History.empty(), 0.0)
    others = [f"person{number}" for number in range(30)]
    save("good.safetensors", History.empty().with_groups("other", others), 1.0)
    names = ["blind.safetensors", "good.safetensors", f"{FROM_SCRATCH}=turned"]
    out = ["--out", "encoders.md"]
    encoders.main(["--weights", *names, "--seeds", "1", "2", *out])
    page = (project / "encoders.md").read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    assert "24 clips of 12 subjects in 2 folds, seeds 1, 2" in page
    rows = {
        cells[0]: cells[1:]
        for line in page.splitlines()
        if line.startswith("| ")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    assert rows["encoder"][1] == "difference to blind.safetensors"
    assert rows["blind.safetensors"][0].startswith("50.0")
    assert rows["good.safetensors"][0].startswith("100.0")
    assert rows["good.safetensors"][1].startswith("+50.0")
    assert rows["linear model"][0].startswith("100.0")
    assert rows["chance"][0] == "50.0"
    # Of 8 tokens of 16 half-precision numbers, 4 boxes, 4 times 5 points and 4 bytes of mask.
    facts = dict(zip(rows["encoder"], rows["good.safetensors"], strict=True))
    assert facts["model"] == "tiny"
    assert facts["MB per clip"] == "0.000484"
    assert float(facts["s per clip"]) > 0
    assert facts["licence"] == "not known here"
    assert facts["seen"] == "30 subjects of other"
    facts = dict(zip(rows["encoder"], rows[f"{FROM_SCRATCH}=turned"], strict=True))
    # Embedding 6160, block 3280, norm 32.
    assert (facts["model"], facts["parameters (M)"]) == ("turned", "0.00947")
    assert (facts["licence"], facts["seen"]) == ("none: random", "nothing")
    # Nothing is left behind.
    assert sorted(path.name for path in (project / "data").iterdir()) == [
        "baselines",
        "folds",
        "shards",
    ]


def test_an_encoder_that_has_seen_who_is_tested_is_not_probed(project: Path) -> None:
    save("seen.safetensors", History.empty().with_groups("sample", ["a"]), 1.0)
    with pytest.raises(SystemExit, match=r"have seen 1 of the 6 subjects that it tests \(a\)"):
        encoders.main(["--weights", "seen.safetensors", "--seeds", "1"])


def test_a_recipe_that_changes_clips_cannot_probe(project: Path) -> None:
    message = "the recipe quick cannot be probed with: the frames are augmented: flips"
    with pytest.raises(SystemExit, match=message):
        encoders.main(["--weights", FROM_SCRATCH, "--recipe", "quick"])


def test_weights_that_are_not_there_are_named(project: Path) -> None:
    with pytest.raises(SystemExit, match=r"absent.pt is neither a name"):
        encoders.main(["--weights", "absent.pt"])


def test_an_unknown_size_is_named(project: Path) -> None:
    with pytest.raises(SystemExit, match="there is no model 'huge'; known are base, base_160"):
        encoders.main(["--weights", f"{FROM_SCRATCH}=huge"])
