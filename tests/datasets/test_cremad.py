import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from project import ROOT

from pipeline.acquire.lfs import LfsObject
from pipeline.common.clips import Clip
from pipeline.datasets.cremad import check_file, list_clips, parse_name, read_objects, read_sexes

TABLES = ROOT / "datasets/cremad"
SEXES = {"1001": "male", "1002": "female"}
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n"


@pytest.fixture(scope="module")
def objects() -> list[LfsObject]:
    return read_objects(TABLES / "files.csv")


@pytest.fixture(scope="module")
def clips(objects: list[LfsObject]) -> list[Clip]:
    """Every published clip, the known bad ones refused."""
    return list_clips(objects, read_sexes(TABLES / "actors.csv"), keep_known_bad=False)


def test_the_list_of_files_is_the_published_one(objects: list[LfsObject]) -> None:
    assert len(objects) == len({item.path for item in objects}) == 7442
    assert round(sum(item.size for item in objects) / 1e9, 2) == 2.44
    assert {len(bytes.fromhex(item.sha256)) for item in objects} == {32}
    # Read off the pointer file in the repository.
    assert objects[0] == LfsObject(
        "VideoFlash/1001_DFA_ANG_XX.flv",
        "10dc3fd1f2bc8203657431598bd7dc9312462008f93d08fda786043ae6a8d2f4",
        265922,
    )


def test_the_published_counts_come_out(clips: list[Clip]) -> None:
    others = dict.fromkeys(["angry", "disgust", "fear", "happy", "sad"], 1271)
    assert Counter(clip.label for clip in clips) == {"neutral": 1087, **others}
    assert {clip.subject for clip in clips} == {str(n) for n in range(1001, 1092)}
    sexes = {clip.subject: clip.sex for clip in clips}
    assert Counter(sexes.values()) == {"male": 48, "female": 43}


def test_a_name_says_who_shows_what() -> None:
    clip = parse_name("VideoFlash/1002_IEO_FEA_HI.flv", SEXES)
    assert clip == Clip(
        "1002_IEO_FEA_HI", "VideoFlash/1002_IEO_FEA_HI.flv", "1002", "fear", sex="female"
    )


@pytest.mark.parametrize(
    "name",
    [
        "happy.flv",
        "1001_IEO_ANG.flv",
        "1001_IEO_ANG_XL.flv",
        "1001_IEO_CON_HI.flv",
        "1001_ieo_ang_hi.flv",
        "101_IEO_ANG_HI.flv",
        "1001_IEO_ANG_HI_copy.flv",
    ],
)
def test_a_name_outside_the_scheme_is_an_error_that_quotes_it(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: not a CREMA-D name"):
        parse_name(name, SEXES)


def test_an_actor_who_is_not_in_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="actor 1099 is not in the table of actors"):
        parse_name("1099_IEO_ANG_HI.flv", SEXES)


def test_four_known_bad_clips_are_refused_each_with_its_reason(clips: list[Clip]) -> None:
    refused = {clip.clip: clip.message for clip in clips if clip.reason}
    assert {clip.reason for clip in clips} == {"", "known_bad"}
    assert sorted(refused) == [
        "1064_IEO_DIS_MD",
        "1064_TIE_SAD_XX",
        "1076_MTI_NEU_XX",
        "1076_MTI_SAD_XX",
    ]
    assert "a minute long" in refused["1064_IEO_DIS_MD"]
    assert "datasets.cremad.keep_known_bad" in refused["1076_MTI_NEU_XX"]


def test_known_bad_clips_are_kept_where_that_is_asked_for(
    objects: list[LfsObject], clips: list[Clip]
) -> None:
    kept = list_clips(objects, read_sexes(TABLES / "actors.csv"), keep_known_bad=True)
    assert [clip.reason for clip in kept] == [""] * 7442
    assert [clip.clip for clip in kept] == [clip.clip for clip in clips]


def checked(folder: Path, content: bytes | None) -> Clip:
    """A clip that is published as `b"a whole video"`, checked against the content of its file."""
    clip = parse_name("VideoFlash/1001_IEO_ANG_HI.flv", SEXES)
    published = LfsObject(clip.path, sha256(b"a whole video").hexdigest(), len(b"a whole video"))
    (folder / "VideoFlash").mkdir()
    if content is not None:
        (folder / clip.path).write_bytes(content)
    return check_file(clip, published, folder)


def test_the_published_file_is_used(tmp_path: Path) -> None:
    assert checked(tmp_path, b"a whole video") == parse_name(
        "VideoFlash/1001_IEO_ANG_HI.flv", SEXES
    )


@pytest.mark.parametrize(
    ("content", "reason", "advice"),
    [
        (None, "missing", r"HI\.flv is not in .*; copy it there"),
        (POINTER.encode(), "lfs_pointer", r"git lfs pull.*gitlab\.com/cs-cooper-lab"),
        (b"a half", "wrong_checksum", "copy it again"),
        (b"A whole video", "wrong_checksum", "copy it again"),
        (b"", "wrong_checksum", "copy it again"),
    ],
    ids=["missing", "pointer", "too short", "of the right size", "empty"],
)
def test_any_other_file_is_refused_with_what_to_do(
    content: bytes | None, reason: str, advice: str, tmp_path: Path
) -> None:
    clip = checked(tmp_path, content)
    assert clip.reason == reason
    assert "1001_IEO_ANG_HI.flv" in clip.message
    assert re.search(advice, clip.message)


def test_the_file_of_a_refused_clip_is_not_looked_at(clips: list[Clip], tmp_path: Path) -> None:
    bad = next(clip for clip in clips if clip.clip == "1076_MTI_NEU_XX")
    assert check_file(bad, LfsObject(bad.path, "0" * 64, 1), tmp_path) == bad
