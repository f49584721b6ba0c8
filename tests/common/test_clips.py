from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.clips import (
    Clip,
    Refusal,
    StoredClip,
    read_manifest,
    read_stored,
    unique_slugs,
    write_manifest,
    write_stored,
)

CLIPS = [
    Clip("a", "day one/a.mp4", "Ann", "angry", sex="female", row=2),
    Clip("b", "b.mp4", "007", "happy", times=np.array([0.1, 0.3]), shots=np.array([0, -1])),
    Clip("c", "ç.mp4", "Zoë", "sad", row=3).refuse(Refusal("missing", "ç.mp4: no such file")),
]


STORED = [
    StoredClip(
        "a",
        "day one/a.mp4",
        "Ann",
        "angry",
        sex="female",
        split="train",
        num_frames=30,
        seconds=1.2,
        content="0" * 64,
        digest="0123" * 16,
        shard="000001.tar",
        first_byte=2**40,
        end=2**40 + 512,
        times=np.array([0.1, 0.3]),
    ),
    StoredClip("007", "ç.mp4", "NA", "happy"),
]


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path / "clips.parquet", CLIPS)
    read = read_manifest(tmp_path / "clips.parquet")
    assert read == CLIPS
    assert type(read[0].row) is int
    assert [clip.times.tolist() for clip in read] == [[], [0.1, 0.3], []]
    assert [clip.shots.tolist() for clip in read] == [[], [0, -1], []]


def test_a_manifest_of_shards_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write_stored(tmp_path / "clips.parquet", STORED)
    read = read_stored(tmp_path / "clips.parquet")
    assert read == STORED
    assert [clip.times.tolist() for clip in read] == [[0.1, 0.3], []]
    assert [type(value) for value in (read[0].end, read[0].seconds, read[1].clip)] == [
        int,
        float,
        str,
    ]


def test_a_manifest_without_clips_is_one_too(tmp_path: Path) -> None:
    write_manifest(tmp_path / "clips.parquet", [])
    assert read_manifest(tmp_path / "clips.parquet") == []
    write_stored(tmp_path / "stored.parquet", [])
    assert read_stored(tmp_path / "stored.parquet") == []


def test_the_same_clips_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_manifest(tmp_path / name / "clips.parquet", iter(CLIPS))
        write_stored(tmp_path / name / "stored.parquet", iter(STORED))
    for file in ("clips.parquet", "stored.parquet"):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two


def test_slugs_stay_as_they_are_where_they_can() -> None:
    # The first eight digits of the names' SHA-256.
    assert unique_slugs(["a b", "a.b", "c"]) == ["a_b-c8687a08", "a_b-2e7336dc", "c"]
    assert unique_slugs(["Ann-1_x", "Zoë", "a/../b"]) == ["Ann-1_x", "Zo_", "a_b"]
    assert unique_slugs(["c", "c"]) == ["c", "c"]


def test_slugs_that_differ_only_in_case_are_told_apart_for_file_systems_that_ignore_it() -> None:
    upper, lower = unique_slugs(["ANN", "ann"])
    assert upper.startswith("ANN-")
    assert lower.startswith("ann-")
    assert upper.casefold() != lower.casefold()


def test_names_with_one_long_beginning_are_told_apart() -> None:
    assert len(set(unique_slugs(["x" * 150 + "1", "x" * 150 + "2"]))) == 2


@given(st.lists(st.text("aA .é/_-", max_size=4), unique=True))
def test_distinct_names_get_distinct_slugs_of_safe_characters(names: list[str]) -> None:
    slugs = unique_slugs(names)
    assert len({slug.casefold() for slug in slugs}) == len(names)
    assert all(set(slug) <= set("aA_-0123456789bcdef") for slug in slugs)


def test_a_name_that_looks_like_a_slug_with_a_hash_collides_with_none() -> None:
    slugs = unique_slugs(["a b", "a.b", "a_b-c8687a08"])
    assert slugs[:2] == ["a_b-c8687a08", "a_b-2e7336dc"]
    assert len(set(slugs)) == 3
