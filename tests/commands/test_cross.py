import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hosts import Host
from small import NEW, task_model, video_encoder
from torch import Tensor, nn

from commands.cross import main
from commands.cross_testing import MappedModel
from pipeline.common.clips import Clip, read_stored, write_stored
from pipeline.common.files import write_json
from pipeline.common.frames import FaceTrack
from pipeline.evaluation.classes import ClassMapping, class_mapping
from pipeline.evaluation.cross_tables import coverage
from pipeline.mtcae.model import Predictions
from pipeline.mtcae.saved import load_model, save_model
from pipeline.store.contents import CLIPS
from pipeline.store.contents import FRAMES as FRAMES_FILE
from pipeline.store.shards import write_shards
from pipeline.store.strips import decode_strip, encode_strip

SEVEN = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprised"]
EIGHT = ["neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprised"]
SIX = ["angry", "disgust", "fear", "happy", "neutral", "sad"]
MEAD = ["angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprised"]

NUM_FRAMES, SIZE = 4, 16
# How the models' clips and those of the other data set were cut out.
FRAMES = {"frames": {"crop": "face"}, "faces": {"min_face_size": 40}}


# --- Classes


def test_calm_clips_are_neutral_to_a_model_without_calm() -> None:
    assert class_mapping(SEVEN, EIGHT) == ClassMapping(
        answers=SEVEN,
        columns=[[0], [1], [2], [3], [4], [5], [6]],
        labels={name: name for name in sorted(SEVEN)} | {"calm": "neutral"},
        left_out=[],
        never_right=[],
    )


def test_the_calm_of_a_model_counts_as_neutral_on_a_data_set_without_calm() -> None:
    mapping = class_mapping(EIGHT, SIX)
    assert mapping.answers == ["neutral", "happy", "sad", "angry", "fear", "disgust", "surprised"]
    assert mapping.columns == [[0, 1], [2], [3], [4], [5], [6], [7]]
    assert mapping.labels == {name: name for name in SIX}
    assert mapping.left_out == []
    assert mapping.never_right == ["surprised"]
    assert mapping.common == ["neutral", "happy", "sad", "angry", "fear", "disgust"]


def test_calm_on_both_sides_stays_a_class_of_its_own() -> None:
    mapping = class_mapping(EIGHT, EIGHT)
    assert mapping.answers == mapping.common == EIGHT
    assert mapping.labels["calm"] == "calm"


def test_calm_without_any_neutral_to_count_as_is_left_out() -> None:
    assert class_mapping(["sad", "angry"], ["sad", "angry", "calm"]).left_out == ["calm"]


def test_labels_that_the_model_does_not_know_are_left_out() -> None:
    mapping = class_mapping(SIX, MEAD)
    assert mapping.left_out == ["contempt", "surprised"]
    assert mapping.never_right == []
    assert mapping.common == SIX
    assert mapping.labels == {name: name for name in SIX}


def test_synonyms_are_one_class_in_the_order_of_the_model() -> None:
    mapping = class_mapping(["Sadness", "anger", "happy"], ["angry", "happiness", "sad", "sad"])
    assert mapping.answers == ["sad", "angry", "happy"]
    assert mapping.labels == {"angry": "angry", "happiness": "happy", "sad": "sad"}


@pytest.mark.parametrize(("labels", "common"), [(["bored"], "nothing"), (["sad", "bored"], "sad")])
def test_fewer_than_two_common_classes_are_an_error_that_names_both_sides(
    labels: list[str], common: str
) -> None:
    with pytest.raises(ValueError, match=rf"angry, .*bored.* have {common} in common"):
        class_mapping(SIX, labels)


def test_a_restricted_mapping_has_only_the_common_answers_and_still_names_the_others() -> None:
    mapping = class_mapping(EIGHT, ["neutral", "fear", "contempt"]).restrict()
    assert mapping.answers == mapping.common == ["neutral", "fear"]
    assert mapping.columns == [[0, 1], [5]]
    assert mapping.never_right == ["happy", "sad", "angry", "disgust", "surprised"]
    assert mapping.left_out == ["contempt"]


def test_the_report_names_every_class_that_is_not_used_as_it_is() -> None:
    counts = Counter({"calm": 4, "neutral": 2, "sad": 3, "contempt": 5})
    classes = ["sadness", "neutral", "happy"]
    mapping = class_mapping(classes, counts)
    assert coverage(counts, classes, mapping, restrict=False).splitlines() == [
        "- Clips used: 9 of 14 that the label stage kept",
        "- Clips left out, of classes that the models do not know: contempt (5)",
        "- Common classes, over which UAR is the mean: sad, neutral",
        "- Classes of the models that the data set lacks: happy; an answer of these is wrong",
        "- Clips counted as another class: calm as neutral (4)",
        "- Probabilities counted as another class: sadness as sad",
    ]
    restricted = coverage(counts, classes, mapping.restrict(), restrict=True)
    assert "lacks: happy; not among the answers" in restricted


# --- Probabilities


class Constant(nn.Module):
    """Gives every clip the same probabilities."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        # Logits are probabilities' logarithms up to a constant.
        self.logits = torch.tensor(probabilities).log() + 3

    def forward(self, frames: Tensor) -> Predictions:
        return Predictions(None, None, self.logits.repeat(len(frames), 1))


def probabilities(mapping: ClassMapping) -> list[list[float]]:
    """What a model of neutral, calm, happy and sad says about two clips, through the mapping."""
    model = MappedModel(Constant([0.2, 0.3, 0.4, 0.1]), mapping)
    rows: list[list[float]] = model(torch.zeros(2, 1)).logits.softmax(dim=1).tolist()
    return rows


def test_the_probability_of_calm_is_added_to_neutral_and_the_sum_stays_one() -> None:
    mapping = class_mapping(["neutral", "calm", "happy", "sad"], ["neutral", "sad"])
    rows = probabilities(mapping)
    assert rows == [pytest.approx([0.5, 0.4, 0.1])] * 2
    assert [sum(row) for row in rows] == pytest.approx([1, 1])


def test_restricted_probabilities_are_renormalised_over_the_common_classes() -> None:
    mapping = class_mapping(["neutral", "calm", "happy", "sad"], ["neutral", "sad"]).restrict()
    assert probabilities(mapping) == [pytest.approx([5 / 6, 1 / 6])] * 2


# --- From shards to the page

CLASSES = ["happy", "neutral", "calm", "sad", "angry"]
# Of each of the four subjects; the model does not know contempt, the data set not happy.
LABELS = ["neutral", "sad", "angry", "contempt", "sad"]
ANSWERS = ["happy", "neutral", "sad", "angry"]
COMMON = ["neutral", "sad", "angry"]
SUBJECTS = ["Ann", "Bob", "Cem", "Dan"]


@pytest.fixture(scope="module")
def strips() -> dict[tuple[str, int], bytes]:
    """Five strips of each subject, every clip of a colour of its own."""
    rng = np.random.default_rng(0)
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), np.uint8)
    strips = {}
    for subject in SUBJECTS:
        for i in range(len(LABELS)):
            frames[:] = rng.integers(0, 256, 3)
            strips[subject, i] = encode_strip(frames, quality=95)
    return strips


@pytest.fixture
def data(tmp_path: Path, strips: dict[tuple[str, int], bytes]) -> Path:
    """The shards of a data set `other`."""
    shards = tmp_path / "data" / "shards" / "other"
    known = np.ones(NUM_FRAMES, np.bool_)
    boxes = np.tile(np.array([2, 4, 10, 12], np.float32), (NUM_FRAMES, 1))
    points = np.full((NUM_FRAMES, 5, 2), 8, np.float32)
    points[:, 1] += 2
    track = FaceTrack(boxes, points, known)
    clips = [
        (Clip(f"{subject}{i}", f"{subject}{i}.mp4", subject, label), strips[subject, i], track)
        for subject in SUBJECTS
        for i, label in enumerate(LABELS)
    ]
    stored = write_shards(shards, clips, shard_bytes=20_000)
    assert 1 < len({clip.shard for clip in stored}) < len(stored)
    write_stored(shards / CLIPS, stored)
    write_json(shards / FRAMES_FILE, FRAMES)
    return tmp_path / "data"


def saved_model(
    path: Path, *, arch: str = "cascaded", image_size: int = SIZE, classes: list[str] = CLASSES
) -> Path:
    """A model with random weights that answers every class to about as many colours."""
    torch.manual_seed(0)
    encoder = video_encoder(
        dim=24, depth=1, num_heads=2, image_size=image_size, num_frames=NUM_FRAMES, patch_size=4
    )
    model = task_model(
        encoder,
        arch=arch,
        decoder="vit",
        num_classes=len(classes),
        dim=12,
        num_heads=2,
        head_dim=6,
        num_layers=1,
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    colours = torch.rand(64, 1, 3, 1, 1).expand(-1, NUM_FRAMES, -1, image_size, image_size)
    with torch.no_grad():
        logits = model.eval()(colours).logits
        scale = 3 / logits.std(dim=0)
        weight, bias = (
            model.get_parameter(f"tasks.heads.expression.proj.{name}")
            for name in ("weight", "bias")
        )
        weight.mul_(scale[:, None])
        bias.sub_(logits.mean(dim=0)).mul_(scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(
        path,
        model,
        metadata={
            "classes": classes,
            "dataset": "mine",
            "fold": 1,
            "encoder": {"name": "from_scratch", "history": NEW.model_dump()},
            "recipes": {"evaluation": {"crops": 1}},
            **FRAMES,
        },
        history=NEW,
    )
    return path


@torch.no_grad()
def answers_by_hand(
    path: Path, strips: dict[tuple[str, int], bytes], *, restrict: bool = False
) -> np.ndarray:
    """(subjects, clips without the contempt one, answers) probabilities, calm added to neutral."""
    model, _ = load_model(path)
    size = model.encoder.size.image_size
    frames = np.stack([decode_strip(strip, size) for strip in strips.values()])
    logits = model(torch.from_numpy(frames).permute(0, 1, 4, 2, 3) / 255).logits.double()
    happy, neutral, calm, sad, angry = logits.softmax(dim=1).numpy().T
    merged = np.stack([happy * (not restrict), neutral + calm, sad, angry], axis=1)
    merged /= merged.sum(axis=1, keepdims=True)
    merged = merged.reshape(len(SUBJECTS), len(LABELS), len(ANSWERS))
    return np.delete(merged, LABELS.index("contempt"), axis=1)


def confusion_by_hand(probabilities: np.ndarray) -> np.ndarray:
    """(subjects, answers, answers) counts."""
    truth = [ANSWERS.index(label) for label in LABELS if label != "contempt"]
    counts = np.zeros((len(SUBJECTS), len(ANSWERS), len(ANSWERS)), np.int64)
    for subject, clips in enumerate(probabilities):
        for actual, scores in zip(truth, clips, strict=True):
            counts[subject, actual, scores.argmax()] += 1
    return counts


def scores_by_hand(counts: np.ndarray) -> tuple[float, float]:
    """UAR and WAR of (answers, answers) counts, over the classes that have clips."""
    recall = [counts[i, i] / counts[i].sum() for i in range(1, len(ANSWERS))]
    return float(np.mean(recall)), counts.trace() / counts.sum()


def evaluated(capsys: pytest.CaptureFixture[str], data: Path, *arguments: str | Path) -> list[str]:
    """The lines of the page that the command prints."""
    main(["--dataset", "other", "--data", str(data), *map(str, arguments)])
    return capsys.readouterr().out.splitlines()


def cells(lines: list[str], first: str | Path, heading: str = "# Trained") -> list[str]:
    """The other cells of the first table row after a heading that begins with `first`."""
    (start,) = [i for i, line in enumerate(lines) if line.startswith(heading)]
    row = next(line for line in lines[start:] if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def percents(cell: str) -> list[float]:
    return [float(number) / 100 for number in re.findall(r"([\d.]+)%", cell)]


def test_the_tables_of_one_model_are_those_of_its_own_answers(
    tmp_path: Path,
    data: Path,
    strips: dict[tuple[str, int], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = saved_model(tmp_path / "model.safetensors", image_size=SIZE // 2)
    counts = confusion_by_hand(answers_by_hand(path, strips))
    whole = counts.sum(axis=0)
    uar, war = scores_by_hand(whole)
    outside = whole[:, ANSWERS.index("happy")].sum()
    assert 0 < outside < 16
    assert 0 < war < 1

    lines = evaluated(capsys, data, "--model", path)

    assert lines[0] == "# Trained on mine, tested on other"
    assert "- Clips used: 16 of 20 that the label stage kept" in lines
    assert "- Clips left out, of classes that the models do not know: contempt (4)" in lines
    assert "- Probabilities counted as another class: calm as neutral" in lines
    clips, subjects, uar_cell, war_cell, outside_cell, *_ = cells(lines, path)
    assert (clips, subjects, outside_cell) == ("16", "4", str(outside))
    # Four subjects are too few for an interval.
    for cell, value in zip((uar_cell, war_cell), (uar, war), strict=True):
        assert cell.endswith("% (-)")
        assert percents(cell) == pytest.approx([value], abs=1e-4)
    for name in COMMON:
        row = whole[ANSWERS.index(name)]
        recall = f"{row[ANSWERS.index(name)] / row.sum():.2%}"
        assert cells(lines, name, "## Recall") == [str(row.sum()), recall]
        assert cells(lines, name, "## Confusion") == list(map(str, row))
    assert cells(lines, "actual", "## Confusion") == ANSWERS
    assert not [line for line in lines if line.startswith("| happy |")]


def test_restricted_answers_are_never_a_class_that_the_data_set_lacks(
    tmp_path: Path,
    data: Path,
    strips: dict[tuple[str, int], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = saved_model(tmp_path / "model.safetensors")
    whole = confusion_by_hand(answers_by_hand(path, strips, restrict=True)).sum(axis=0)
    lines = evaluated(capsys, data, "--model", path, "--restrict")
    assert lines[0].endswith("restricted to the common ones")
    _, _, uar, war, outside, *_ = cells(lines, path)
    assert [percents(uar)[0], percents(war)[0]] == pytest.approx(scores_by_hand(whole), abs=1e-4)
    assert outside == "0"
    assert cells(lines, "actual", "## Confusion") == COMMON
    for name in COMMON:
        row = whole[ANSWERS.index(name), 1:]
        assert cells(lines, name, "## Confusion") == list(map(str, row))


def test_several_models_have_a_mean_a_deviation_and_an_ensemble(
    tmp_path: Path,
    data: Path,
    strips: dict[tuple[str, int], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = [
        saved_model(tmp_path / "fold1" / "model.safetensors", arch="stl"),
        saved_model(tmp_path / "fold2" / "model.safetensors", image_size=SIZE // 2),
    ]
    each = [answers_by_hand(path, strips) for path in paths]
    counts = [confusion_by_hand(answers).sum(axis=0) for answers in each]
    together = confusion_by_hand(np.mean(each, axis=0)).sum(axis=0)
    scores = np.array([scores_by_hand(one) for one in counts])
    assert scores[0].tolist() != scores[1].tolist()

    lines = evaluated(capsys, data, "--model", *paths)

    def uar_and_war(row: str | Path) -> list[float]:
        return [percents(cell)[0] for cell in cells(lines, row)[2:4]]

    assert [uar_and_war(path) for path in paths] == [
        pytest.approx(expected, abs=1e-4) for expected in scores
    ]
    assert uar_and_war("mean") == pytest.approx(scores.mean(axis=0), abs=1e-4)
    assert uar_and_war("std") == pytest.approx(scores.std(axis=0, ddof=1), abs=1e-4)
    assert uar_and_war("ensemble") == pytest.approx(scores_by_hand(together), abs=1e-4)
    outside = np.mean([one[:, 0].sum() for one in counts])
    assert float(cells(lines, "mean")[4]) == outside
    # A structure without box head has no box scores, and neither has an average of models.
    assert cells(lines, paths[0])[5:] == cells(lines, "ensemble")[5:] == ["-", "-"]
    assert 0 <= float(cells(lines, paths[1])[5]) <= 1
    for name in COMMON:
        i = ANSWERS.index(name)
        recalls = [np.mean([one[i, i] / one[i].sum() for one in counts])]
        recalls.append(together[i, i] / together[i].sum())
        found = [percents(cell)[0] for cell in cells(lines, name, "## Recall")[1:]]
        assert found == pytest.approx(recalls, abs=1e-4)
        assert cells(lines, name, "## Confusion, ensemble") == list(map(str, together[i]))


def test_the_page_is_also_written_and_is_the_same_whatever_the_batches(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = saved_model(tmp_path / "model.safetensors"), tmp_path / "metrics" / "cross.md"
    lines = evaluated(capsys, data, "--model", path, "--out", out)
    # Batches of one: some hold nothing but a clip that is left out.
    assert evaluated(capsys, data, "--model", path, "--batch-size", "1") == lines
    assert out.read_text(encoding="utf-8").splitlines() == lines
    assert [file.name for file in out.parent.iterdir()] == ["cross.md"]


def test_clips_on_a_host_have_the_scores_of_those_on_the_disk(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = saved_model(tmp_path / "model.safetensors")
    lines = evaluated(capsys, data, "--model", path)
    monkeypatch.setenv("SHARDS_CACHE", str(tmp_path / "cache"))
    with Host() as host:
        address = host.add_folder("/far", data / "shards/other")
        far = tmp_path / "nothing"
        assert evaluated(capsys, far, "--model", path, "--shards", address) == lines


def test_a_data_set_without_shards_says_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDS_CACHE", str(tmp_path / "cache"))
    path = saved_model(tmp_path / "model.safetensors")
    make = r"shards of other \(.*clips\.parquet.*\); make them with `dvc exp run -S dataset=other"
    places: list[list[str]] = [["--data", str(tmp_path / "nothing")]]
    with Host() as host:
        places.append(["--shards", f"{host.address}/nothing"])
        for place in places:
            with pytest.raises(SystemExit, match=make):
                main(["--dataset", "other", "--model", str(path), *place])


def test_a_data_set_of_one_subject_has_scores_without_an_interval(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = data / "shards" / "other" / CLIPS
    write_stored(manifest, [clip for clip in read_stored(manifest) if clip.group == "Ann"])
    path = saved_model(tmp_path / "model.safetensors")
    clips, subjects, uar, war, *_ = cells(evaluated(capsys, data, "--model", path), path)
    assert (clips, subjects) == ("4", "1")
    assert uar.endswith("% (-)")
    assert war.endswith("% (-)")


def test_a_model_of_the_same_data_set_is_refused(tmp_path: Path, data: Path) -> None:
    path = saved_model(tmp_path / "model.safetensors")
    (data / "shards" / "other").rename(data / "shards" / "mine")
    with pytest.raises(SystemExit, match=r"was trained on mine itself.*name another data set"):
        main(["--dataset", "mine", "--data", str(data), "--model", str(path)])


def test_a_model_of_other_frames_is_refused_with_what_differs(tmp_path: Path, data: Path) -> None:
    path = saved_model(tmp_path / "model.safetensors")
    write_json(data / "shards/other" / FRAMES_FILE, FRAMES | {"frames": {"crop": "square"}})
    with pytest.raises(SystemExit, match=r"frames.crop face \(model\) and square"):
        main(["--dataset", "other", "--data", str(data), "--model", str(path)])


def test_models_of_different_classes_are_not_averaged(tmp_path: Path, data: Path) -> None:
    one = saved_model(tmp_path / "one.safetensors")
    two = saved_model(tmp_path / "two.safetensors", classes=SIX)
    with pytest.raises(SystemExit, match="models of one experiment at a time"):
        main(["--dataset", "other", "--data", str(data), "--model", str(one), str(two)])


def test_a_data_set_without_shards_is_an_error_that_says_how_to_make_them(tmp_path: Path) -> None:
    path = saved_model(tmp_path / "model.safetensors")
    with pytest.raises(SystemExit, match="dvc exp run -S dataset=other label"):
        main(["--dataset", "other", "--data", str(tmp_path), "--model", str(path)])


def test_the_page_says_what_an_encoder_had_seen_and_whom_it_has_met(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = saved_model(tmp_path / "model.safetensors")
    assert "- Encoder from_scratch: random numbers" in evaluated(capsys, data, "--model", fresh)
    met = NEW.with_groups("other", ["Ann", "Eve"])
    model, metadata = load_model(fresh)
    metadata["encoder"] = {"name": "mine.safetensors", "history": met.model_dump()}
    path = tmp_path / "met.safetensors"
    save_model(path, model, metadata=metadata, history=met)
    lines = evaluated(capsys, data, "--model", path)
    assert (
        "- Encoder mine.safetensors: has seen 2 subjects of other; **it has met 1 of the people "
        "who are tested here**"
    ) in lines
