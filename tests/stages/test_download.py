import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import Host
from project import ROOT
from pydantic import ValidationError

from pipeline.common.clips import read_manifest
from stages.download import Params, main


@pytest.fixture
def document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return document


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where downloads go, with the data sets' terms and tables."""
    # Without the videos that a user may have put there.
    ignored = shutil.ignore_patterns("videos")
    shutil.copytree(ROOT / "datasets", tmp_path / "datasets", ignore=ignored)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def download(document: dict[str, Any], dataset: str, **changes: object) -> None:
    document["dataset"] = dataset
    document["datasets"][dataset] |= changes
    params = Params.from_document(document)
    main(params, Path("datasets") / dataset, Path("raw"), Path("raw.parquet"))


@pytest.mark.parametrize("dataset", ["ravdess", "cremad", "mead", "dfew", "mafw", "ferv39k"])
def test_nothing_is_fetched_before_the_terms_are_accepted(
    dataset: str, document: dict[str, Any], host: Host, project: Path
) -> None:
    address = {"address": host.address} if dataset in ("ravdess", "cremad") else {}
    with pytest.raises(SystemExit) as stopped:
        download(document, dataset, **address)
    said = str(stopped.value)
    assert (project / f"datasets/{dataset}/TERMS.md").read_text(encoding="utf-8") in said
    assert f"-S datasets.{dataset}.accept_licence=true" in said
    assert not host.requests
    assert not (project / "downloads").exists()


def test_a_folder_without_a_single_video_of_the_table_stops_the_stage(
    document: dict[str, Any], project: Path
) -> None:
    rows = [f"take{i}.mp4,s{i % 4},happy" for i in range(80)]
    table = project / "datasets/custom/clips.csv"
    table.write_text("\n".join(["path,subject,label", *rows]), encoding="utf-8")
    videos = project / "elsewhere"
    with pytest.raises(SystemExit, match=f"source is {videos}, and there is no such folder; name"):
        download(document, "custom", source=str(videos))
    videos.mkdir()
    with pytest.raises(SystemExit) as stopped:
        download(document, "custom", source=str(videos))
    first, *lines = str(stopped.value).splitlines()
    assert first == (
        "download: none of the 80 clips of custom can be used; their videos are looked for in "
        f"{videos}"
    )
    assert lines[0].startswith("  refused, row 2: take0.mp4 is not in the videos' folder")
    assert lines[3:] == ["  refused, and 77 more: missing"]
    (videos / "take5.mp4").write_bytes(b"video")
    download(document, "custom", source=str(videos))
    assert [c.path for c in read_manifest(Path("raw.parquet")) if not c.reason] == ["take5.mp4"]


def test_a_spent_budget_is_named_with_the_mirror(
    document: dict[str, Any], host: Host, project: Path
) -> None:
    content = b"a video"
    digest = host.add_lfs("lab/CREMA-D", [content])[content]
    (project / "datasets/cremad/files.csv").write_text(
        f"path,sha256,size\nVideoFlash/1001_DFA_ANG_XX.flv,{digest},{len(content)}\n"
    )
    host.over_quota.add("lab/CREMA-D")
    address = f"{host.address}/lab/CREMA-D.git"
    with pytest.raises(SystemExit) as stopped:
        download(document, "cremad", address=address, accept_licence=True)
    assert "data quota" in str(stopped.value)
    assert "-S datasets.cremad.address=https://gitlab.com/cs-cooper-lab/crema-d-mirror.git" in str(
        stopped.value
    )
    host.over_quota.clear()
    download(document, "cremad", address=address, accept_licence=True)
    (clip,) = read_manifest(Path("raw.parquet"))
    assert (clip.subject, clip.label, clip.sex) == ("1001", "angry", "male")
    sums = Path("raw/SHA256SUMS").read_text(encoding="utf-8")
    assert sums == f"{digest}  VideoFlash/1001_DFA_ANG_XX.flv\n"


def test_known_bad_clips_are_not_even_fetched_unless_they_are_kept(
    document: dict[str, Any], host: Host, project: Path
) -> None:
    contents = {"1001_DFA_ANG_XX": b"good", "1064_IEO_DIS_MD": b"bad"}
    digests = host.add_lfs("lab/CREMA-D", contents.values())
    rows = [
        f"VideoFlash/{name}.flv,{digests[content]},{len(content)}\n"
        for name, content in contents.items()
    ]
    (project / "datasets/cremad/files.csv").write_text("path,sha256,size\n" + "".join(rows))
    settings = {"address": f"{host.address}/lab/CREMA-D.git", "accept_licence": True}
    download(document, "cremad", **settings)
    reasons = {clip.clip: clip.reason for clip in read_manifest(Path("raw.parquet"))}
    assert reasons == {"1001_DFA_ANG_XX": "", "1064_IEO_DIS_MD": "known_bad"}
    assert len(list(Path("downloads/cremad/VideoFlash").iterdir())) == 1
    download(document, "cremad", keep_known_bad=True, **settings)
    assert not [clip for clip in read_manifest(Path("raw.parquet")) if clip.reason]


def test_mead_wants_a_folder(document: dict[str, Any]) -> None:
    with pytest.raises(SystemExit, match=r"datasets\.mead\.source"):
        download(document, "mead", accept_licence=True)


def test_an_unknown_setting_is_named_with_its_data_set_alone(document: dict[str, Any]) -> None:
    document["dataset"] = "ravdess"
    document["datasets"]["ravdess"]["adress"] = "https://zenodo.org"
    with pytest.raises(ValidationError) as raised:
        Params.from_document(document)
    (error,) = raised.value.errors()
    assert error["loc"][-1] == "adress"
