import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image
from skimage.data import astronaut
from small import FACES

from pipeline.common.clips import Clip, Refusal, read_stored, write_manifest
from pipeline.common.files import write_json
from pipeline.common.frames import Frames
from pipeline.store.strips import encode_strip
from stages.label import Params, QualitySettings, main

TIMES = np.array([0.0, 0.2, 0.4, 0.6])


def face() -> Frames:
    portrait = Image.fromarray(astronaut()[0:300, 80:380])  # type: ignore[no-untyped-call]
    return np.asarray(portrait.resize((224, 224)))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strips of a face throughout, one that leaves, nobody, and two shots; and a refused clip."""
    folder = tmp_path_factory.mktemp("label") / "frames"
    folder.mkdir()
    blank = np.full((224, 224, 3), 128, np.uint8)
    content = {"a": [face()] * 4, "b": [face(), face(), blank, blank], "c": [blank] * 4}
    content["e"] = [face()] * 4
    for clip, pictures in content.items():
        (folder / f"{clip}.jpg").write_bytes(encode_strip(np.stack(pictures), quality=95))
    clips = [
        Clip("a", "a.mp4", "Ben", "happy", row=2),
        Clip("b", "b.mp4", "Ann", "sad", row=3, holes=2, stream="stream 1 of 2"),
        Clip("c", "c.mp4", "Ann", "sad", row=4),
        Clip("d", "d.mp4", "Ann", "sad", row=5).refuse(Refusal("empty", "d.mp4: zero bytes")),
        Clip("e", "e.mp4", "Eva", "sad", row=6),
    ]
    shots = {"e": [-1, -1, 1, 1]}
    clips = [
        replace(clip, times=TIMES, shots=np.array(shots.get(clip.clip, [0] * 4))) for clip in clips
    ]
    write_manifest(folder / "clips.parquet", clips)
    write_json(folder / "frames.json", {"frames": {"crop": "square"}})
    return folder


@pytest.fixture(scope="module")
def result(frames: Path) -> tuple[Path, Path]:
    """Where the shards and the report are; the stage ends with an error, but only then."""
    quality_settings = QualitySettings(max_refused=0)
    out, quality = frames.parent / "shards", frames.parent / "quality.json"
    with pytest.raises(SystemExit, match=r"2 of 5 clips were refused, more than .* 0\.0 "):
        main(Params(faces=FACES, quality=quality_settings), frames, out, quality)
    return out, quality


def test_clips_with_a_face_reach_the_shards_in_the_order_of_their_subjects_and_no_others(
    result: tuple[Path, Path],
) -> None:
    out, _ = result
    assert sorted(path.name for path in out.iterdir()) == [
        "000000.tar",
        "clips.parquet",
        "frames.json",
    ]
    found = {
        sample["__key__"]: sample
        for sample in wds.WebDataset(str(out / "000000.tar"), shardshuffle=False).decode()
    }
    assert list(found) == ["b", "a", "e"]
    assert found["a"]["mask.npy"].tolist() == [True] * 4
    assert found["b"]["mask.npy"].tolist() == [True, True, False, False]
    assert not found["b"]["boxes.npy"][2:].any()
    assert found["e"]["mask.npy"].tolist() == [False, False, True, True]
    stored = read_stored(out / "clips.parquet")
    assert [(clip.clip, clip.group, clip.shard) for clip in stored] == [
        ("b", "Ann", "000000.tar"),
        ("a", "Ben", "000000.tar"),
        ("e", "Eva", "000000.tar"),
    ]
    for clip in stored:
        np.testing.assert_array_equal(clip.times, TIMES)


def test_the_report_counts_what_was_found_and_why_clips_were_refused(
    result: tuple[Path, Path],
) -> None:
    _, quality = result
    report = json.loads(quality.read_text(encoding="utf-8"))
    assert (report["clips"], report["used"], report["refused"]) == (5, 3, 2)
    assert report["refused_by_reason"] == {"empty": 1, "no_face": 1}
    assert report["detection_rate"] == 0.6667
    assert report["faces_per_frame"] == {"none": 0.1667, "one": 0.8333, "several": 0.0}
    assert report["clips_with_cuts"] == [{"clip": "e", "path": "e.mp4", "row": 6, "shots": 2}]
    assert report["damaged_clips"] == [{"clip": "b", "path": "b.mp4", "row": 3, "holes": 2}]
    assert report["chosen_streams"] == [
        {"clip": "b", "path": "b.mp4", "row": 3, "stream": "stream 1 of 2"}
    ]
    rows = {clip["row"]: clip["message"] for clip in report["refused_clips"]}
    assert sorted(rows) == [4, 5]
    assert rows[4] == (
        "c.mp4, cut to its centre (frames.crop: face looks in the whole picture): no face, not "
        "even a small one, in any of 4 frames"
    )
