from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands.describe import examples, main
from pipeline.common.clips import Clip, StoredClip, write_stored
from pipeline.common.frames import FaceTrack
from pipeline.folds.folds import GroupFold, write_folds
from pipeline.store.contents import CLIPS
from pipeline.store.folders import LocalShards
from pipeline.store.shards import write_shards
from pipeline.store.strips import encode_strip

NUM_FRAMES, SIZE, CAPTION = 4, 64, 20
# The middle one of the three frames with a face is frame 2; frame 0 has none.
BOX = (16, 8, 47, 55)
POINTS = [(24, 20), (40, 20), (32, 32), (26, 44), (38, 44)]
COLOURS = {
    "lime": (0, 255, 0),
    "red": (255, 0, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
}

TIMES = np.array([0.1, 0.3, 0.5, 0.7])
RECORDS = [
    Clip("a0", "a0.mp4", "Ann", "happy", sex="female", num_frames=30, seconds=1.2, times=TIMES),
    Clip("a1", "a1.mp4", "Ann", "happy", sex="female", num_frames=50, seconds=2.0, times=TIMES),
    Clip("a2", "a2.mp4", "Ann", "sad", sex="female", num_frames=40, seconds=1.6, times=TIMES),
    Clip("b0", "b0.mp4", "Bob", "sad", sex="male", num_frames=99, seconds=0.0, times=TIMES),
    Clip("z0", "z0.mp4", "Zoë", "happy", num_frames=60, seconds=2.4, times=TIMES),
]
FOLDS = [GroupFold(1, ["Bob"], ["Zoë"], ["Ann"]), GroupFold(2, ["Zoë"], ["Ann"], ["Bob"])]


def stored(clip: Clip, grey: int, detected: list[bool]) -> tuple[Clip, bytes, FaceTrack]:
    """A grey clip; in frame 2 the face is at BOX and POINTS, in the others somewhere else."""
    mask = np.array(detected)
    boxes = np.full((NUM_FRAMES, 4), 5, np.float32)
    points = np.full((NUM_FRAMES, 5, 2), 5, np.float32)
    boxes[2], points[2] = BOX, POINTS
    boxes[~mask], points[~mask] = 0, 0
    frames = np.full((NUM_FRAMES, SIZE, SIZE, 3), grey, np.uint8)
    return clip, encode_strip(frames, quality=95), FaceTrack(boxes, points, mask)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five clips of three subjects; Bob's face is found in half of his four frames."""
    shards = tmp_path / "shards/tiny"
    found = {clip.clip: [False, True, True, True] for clip in RECORDS}
    found |= {"a0": [True] * 4, "b0": [True, False, True, False]}
    clips = write_shards(
        shards,
        (
            stored(clip, grey=100 + 20 * i, detected=found[clip.clip])
            for i, clip in enumerate(RECORDS)
        ),
        shard_bytes=20_000,
    )
    assert 1 < len({clip.shard for clip in clips}) < len(clips)
    write_stored(shards / CLIPS, clips)
    write_folds(tmp_path / "folds/tiny.csv", clips, FOLDS)
    main("tiny", LocalShards(tmp_path / "shards/tiny"), tmp_path)
    return tmp_path


def section(card: str, title: str) -> list[list[str]]:
    """The rows of cells below a title."""
    rows = card.split(f"## {title}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_card_counts_what_is_in_the_shards(data: Path) -> None:
    card = (data / "cards/tiny/card.md").read_text(encoding="utf-8")
    assert card.startswith("# tiny: 5 clips of 3 subjects\n")
    assert section(card, "Clips of each class, by the fold that tests them") == [
        ["class", "1", "2", "never tested", "all"],
        ["---"] * 5,
        ["happy", "2", "0", "1", "3"],
        ["sad", "1", "1", "0", "2"],
        ["all", "3", "1", "1", "5"],
    ]
    assert section(card, "Subjects by the fold that tests them")[2:] == [
        ["female", "1", "0", "0", "1"],
        ["male", "0", "1", "0", "1"],
        ["unknown", "0", "0", "1", "1"],
        ["all", "1", "1", "1", "3"],
    ]
    assert section(card, "Clips of each subject") == [
        ["subject", "happy", "sad", "all"],
        ["---"] * 4,
        ["Ann", "2", "1", "3"],
        ["Bob", "0", "1", "1"],
        ["Zoë", "1", "0", "1"],
        ["all", "3", "2", "5"],
    ]


def test_the_card_tells_how_often_the_face_was_found(data: Path) -> None:
    card = (data / "cards/tiny/card.md").read_text(encoding="utf-8")
    # Of 20 frames 4 + 3 + 3 + 2 + 3 show it; one clip of five shows it throughout.
    assert "found the face in 75.0% of the frames; in all frames of 20.0% of the clips" in card


def test_the_card_tells_lengths_and_says_what_a_length_of_0_is(data: Path) -> None:
    card = (data / "cards/tiny/card.md").read_text(encoding="utf-8")
    assert section(card, "Lengths") == [
        ["length", "seconds", "frames"],
        ["---"] * 3,
        ["min", "1.2", "30.0"],
        ["median", "1.8", "50.0"],
        ["max", "2.4", "99.0"],
    ]
    assert "Files that declare no length, left out of the seconds: 1." in card


def test_boxes_and_points_are_drawn_where_they_are(data: Path) -> None:
    with Image.open(data / "cards/tiny/contact_sheet.png") as picture:
        sheet = np.array(picture.convert("RGB"))
    assert sheet.shape == (2 * (SIZE + CAPTION), 4 * SIZE, 3)
    # In the order of labels and subjects: a0, a1, z0, a2, and in the second row b0.
    places = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    greys = [100, 120, 180, 140, 160]
    for (row, column), grey in zip(places, greys, strict=True):
        x, y = column * SIZE, row * (SIZE + CAPTION)
        tile = sheet[y : y + SIZE, x : x + SIZE].astype(int)
        x1, y1, x2, y2 = BOX
        green = (tile == COLOURS["lime"]).all(axis=2)
        expected = np.zeros((SIZE, SIZE), bool)
        expected[y1 : y2 + 1, x1 : x2 + 1] = True
        expected[y1 + 2 : y2 - 1, x1 + 2 : x2 - 1] = False
        np.testing.assert_array_equal(green, expected)
        for (px, py), colour in zip(POINTS, ("red", "blue", "yellow", "red", "blue"), strict=True):
            disc = (tile == COLOURS[colour]).all(axis=2)[py - 4 : py + 5, px - 4 : px + 5]
            rows, columns = np.nonzero(disc)
            assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 7, 1, 7)
        assert abs(tile[0, 0] - grey).max() <= 2
        caption = sheet[y + SIZE : y + SIZE + CAPTION, x : x + SIZE]
        assert caption.min() < 64
    # The three places without a clip stay white.
    assert (sheet[SIZE + CAPTION :, SIZE:] == 255).all()


def test_examples_are_spread_over_all_classes_and_over_the_subjects() -> None:
    # CREMA-D's six classes in their proportions, 91 subjects.
    counts = {"angry": 14, "disgust": 14, "fear": 14, "happy": 14, "neutral": 12, "sad": 14}
    clips = [
        StoredClip(f"{subject}_{label}_{i}", "", str(subject), label)
        for subject in range(1001, 1092)
        for label, count in counts.items()
        for i in range(count)
    ]
    chosen = examples(clips)
    shown = Counter(clip.label for clip in chosen)
    assert set(shown) == set(counts)
    assert set(shown.values()) <= {2, 3}
    assert len({clip.group for clip in chosen}) == 16


def test_all_clips_are_examples_where_they_are_few() -> None:
    clips = [StoredClip(clip.clip, clip.path, clip.subject, clip.label) for clip in RECORDS]
    assert [clip.clip for clip in examples(clips)] == ["a0", "a1", "z0", "a2", "b0"]
