import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT
from small_collection import look_in_this_process, make_pictures, make_videos

from pipeline.pretrain.manifest import MANIFEST, count_parts
from stages.pretrain.collect import Params, main


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    look_in_this_process(monkeypatch)
    text = (ROOT / "pretrain/params.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def run(document: dict[str, Any], source: Path, out: Path) -> dict[str, Any]:
    """What the stage says of the quality."""
    quality = out.parent / "data_quality.json"
    main(Params.from_document(document), source, out, quality)
    found: dict[str, Any] = json.loads(quality.read_text(encoding="utf-8"))
    return found


def test_a_corrupt_video_is_named_and_the_stage_goes_on(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_videos(tmp_path / "films", anna_1=20, bo_1=20, cy_1=20)
    (source / "cy/bad.mp4").write_text("not a video")
    document |= {"data": "videos", "max_refused": 0.25}
    found = run(document, source, tmp_path / "out")
    assert (found["files"], found["samples"], found["refused"]) == (4, 3, 1)
    assert found["refused_by_reason"] == {"unreadable": 1}
    assert found["refused_files"][0]["path"] == "cy/bad.mp4"
    assert "refused, cy/bad.mp4: bad.mp4: not a readable video" in capsys.readouterr().out
    assert sum(count_parts(tmp_path / "out" / MANIFEST).values()) == 3
    document["max_refused"] = 0.0
    with pytest.raises(SystemExit, match=r"1 of 4 files were refused, more than max_refused = 0.0"):
        run(document, source, tmp_path / "again")


def test_pictures_are_collected_out_of_a_table(document: dict[str, Any], tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "faces", *(f"{i}.png" for i in range(6)))
    table = folder / "faces.csv"
    rows = ["path,group", *(f"{i}.png,g{i % 3}" for i in range(6))]
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = run(document | {"data": "images"}, table, tmp_path / "out")
    assert (found["files"], found["samples"]) == (6, 6)
    assert count_parts(tmp_path / "out" / MANIFEST) == {"train": 4, "held_out": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "holds no file of the kinds"),
        ({"source": "absent"}, "neither a folder nor a table"),
        ({"data": "shards"}, "holds no shards, and neither do its folders"),
        ({"files": 1}, "all samples are of the group 'a/1'|all samples are of the group 'a'"),
        (
            {"exclude_folds": {"table": "folds.csv", "folds": [1]}},
            "exclude_folds goes with data: shards",
        ),
    ],
)
def test_what_cannot_be_collected_is_a_clear_error(
    change: dict[str, Any], message: str, document: dict[str, Any], tmp_path: Path
) -> None:
    source = tmp_path / str(change.pop("source", "films"))
    if source.name == "films":
        source.mkdir()
    if change.pop("files", 0):
        make_videos(source, a_1=20, a_2=20)
    with pytest.raises(SystemExit, match=message):
        run(document | {"data": "videos"} | change, source, tmp_path / "out")


def test_a_corrupt_file_may_be_the_only_one_of_the_held_out_group(
    document: dict[str, Any], tmp_path: Path
) -> None:
    source = make_videos(tmp_path / "films", anna_1=20)
    (source / "bo.mp4").write_text("not a video")
    with pytest.raises(SystemExit, match="no sample is left in the part"):
        run(document | {"data": "videos", "max_refused": 1.0}, source, tmp_path / "out")
