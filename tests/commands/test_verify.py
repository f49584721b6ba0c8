import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from small import FACES, FRAMES, NEW, task_model, video_encoder
from small_shards import write_small_shards

from commands.verify import main
from pipeline.mtcae.saved import load_model, save_model

COLOURS = {
    "angry": (200, 60, 40),
    "happy": (60, 180, 60),
    "neutral": (110, 110, 110),
    "sad": (190, 180, 40),
}
CLASSES = list(COLOURS)
SIDE, TIME, PEOPLE = 32, 4, 10


def frames_of(label: str, rng: np.random.Generator) -> np.ndarray:
    noise = rng.integers(-20, 21, (TIME, SIDE, SIDE, 3))
    return (np.array(COLOURS[label]) + rng.integers(-15, 16) + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def clips() -> list[tuple[str, str, np.ndarray]]:
    """Of ten people one of each class, whose colour tells it."""
    rng = np.random.default_rng(0)
    return [(f"S{i}", label, frames_of(label, rng)) for i in range(PEOPLE) for label in CLASSES]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, clips: list[tuple[str, str, np.ndarray]]
) -> Path:
    """A model that knows the colours by a least-squares fit, and the shards of two data sets."""
    folder: Path = tmp_path_factory.mktemp("verify")
    torch.manual_seed(0)
    encoder = video_encoder(dim=64, depth=1, num_heads=1, image_size=SIDE, num_frames=TIME)
    model = task_model(encoder, arch="stl", decoder="vit", num_classes=len(CLASSES)).eval()
    head = model.tasks.heads["expression"]
    pixels = torch.from_numpy(np.stack([frames for *_, frames in clips])).permute(0, 1, 4, 2, 3)
    labels = torch.tensor([CLASSES.index(label) for _, label, _ in clips])
    with torch.no_grad():
        features = head.norm(encoder(pixels).mean(dim=1)).double()
        ones = torch.ones(len(features), 1, dtype=torch.float64)
        wanted = torch.eye(len(CLASSES), dtype=torch.float64)[labels]
        # Ridge, so that no single feature decides.
        design = torch.cat([features, ones], dim=1)
        square = design.T @ design + 0.1 * torch.eye(design.shape[1], dtype=torch.float64)
        solution = 10 * torch.linalg.solve(square, design.T @ wanted)
        head.proj.weight.copy_(solution[:-1].T)
        head.proj.bias.copy_(solution[-1])
    described = {
        "dataset": "tiny",
        "fold": 1,
        "classes": CLASSES,
        "frames": FRAMES.model_copy(update={"num_frames": TIME, "size": SIDE}).model_dump(),
        "faces": FACES.model_dump(),
        "recipes": {"evaluation": {"crops": 1}},
    }
    for name, classes in (("right", CLASSES), ("permuted", ["sad", "angry", "happy", "neutral"])):
        (folder / name).mkdir()
        metadata = described | {"classes": classes}
        save_model(folder / name / "model.safetensors", model, metadata=metadata, history=NEW)
    write_small_shards(folder / "data/shards/colours", clips, {})
    swapped = [(subject, label, frames[..., ::-1]) for subject, label, frames in clips]
    write_small_shards(folder / "data/shards/swapped", swapped, {})
    return folder


def rows(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, dict[str, float]]:
    """UAR in percent of each change, by step, as the command prints it."""
    main([str(argument) for argument in arguments])
    page = capsys.readouterr().out
    table: dict[str, dict[str, float]] = {"page": {page: 0}}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[2].endswith("%"):
            table.setdefault(cells[0], {})[cells[1]] = float(cells[2].rstrip("%"))
    return table


def test_a_model_that_is_read_as_it_was_trained_gains_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(capsys, folder / "right", "colours", "--data", folder / "data")
    assert found["-"] == {"as it is": 100}
    (page,) = found.pop("page")
    assert "No change of a single step gives a higher UAR." in page
    assert "40 clips of 10 subjects: all that are stored" in page
    assert found["colour order"]["blue first"] < 80
    assert found["sampling"]["backwards"] == found["crop"]["mirrored"] == 100


def test_exchanged_colours_are_found_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "why.md"
    found = rows(capsys, folder / "right", "swapped", "--data", folder / "data", "--out", out)
    (page,) = found.pop("page")
    assert found["-"]["as it is"] < 80
    assert found["colour order"] == {"blue first": 100}
    assert "The largest gain: colour order, blue first: +" in page
    # All ten people gain: 2 of 2^10 ways to swap the two readings of a person are as extreme.
    assert re.search(r"\(p = 0\.0\d+ over subjects, corrected for \d+ changes\)", page)
    assert out.read_text() == page


def test_labels_in_another_order_are_found_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(capsys, folder / "permuted", "colours", "--data", folder / "data")
    (page,) = found.pop("page")
    assert found["-"] == {"as it is": 0}
    # The model's true order is that of the alphabet.
    assert found["label order"]["alphabetical"] == 100
    assert found["label order"]["best of all on these clips: angry, happy, neutral, sad"] == 100
    assert "The largest gain: label order, alphabetical: +100.0%" in page


def test_a_checkpoint_of_others_is_read_with_the_classes_that_are_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same model in the layout of the official code, whose norm comes after the mean."""
    model, _ = load_model(folder / "right/model.safetensors")
    state = {
        name.removeprefix("encoder."): tensor
        for name, tensor in model.state_dict().items()
        if name.startswith("encoder.") and name not in ("encoder.mean", "encoder.std")
    }
    # Two norms in a row, whose first one has no weights of its own, are nearly the first alone.
    head = model.tasks.heads["expression"].proj
    state |= {"head.weight": head.weight.detach(), "head.bias": head.bias.detach()}
    path = folder / "foreign.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    options = ["--data", folder / "data", "--size", SIDE, "--frames", TIME]
    found = rows(capsys, path, "colours", *options, "--classes", *CLASSES)
    found.pop("page")
    assert set(found["pooling"]) == {"norm of the mean", "mean of the normed"}
    assert found["pooling"]["mean of the normed"] > 90
    with pytest.raises(SystemExit, match=r"verify: .* has 4 outputs and no names for them"):
        main([str(option) for option in (path, "colours", *options)])


def test_a_model_is_tested_on_the_clips_that_it_never_saw(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, metadata = load_model(folder / "right/model.safetensors")
    weights = tmp_path / "model.safetensors"
    save_model(weights, model, metadata=metadata | {"dataset": "colours"}, history=NEW)
    arguments = [weights, "colours", "--data", folder / "data"]
    with pytest.raises(SystemExit, match="was trained on colours itself"):
        main([str(argument) for argument in arguments])
    tested = [f"clip{i:02}" for i in range(8)]
    actual = CLASSES * 2
    predicted = [*actual[:4], *["angry"] * 4]
    pd.DataFrame({"clip": tested, "actual": actual, "predicted": predicted}).to_parquet(
        tmp_path / "predictions.parquet"
    )
    (page,) = rows(capsys, *arguments).pop("page")
    assert "8 clips of 2 subjects: those of " in page
    assert "Its training wrote a UAR of 62.5% for these clips." in page
