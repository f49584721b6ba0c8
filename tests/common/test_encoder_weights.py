from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.common.encoder_weights import History, read_history


def test_a_history_grows_with_every_training() -> None:
    history = History.empty().with_groups("sample", ["s03", "s01"])
    history = history.with_groups("ravdess", ["actor_02"]).with_groups("sample", ["s02", "s01"])
    assert history.groups == {"sample": ["s01", "s02", "s03"], "ravdess": ["actor_02"]}
    assert history.in_words() == "has seen 3 subjects of sample, 1 subject of ravdess"


def test_the_history_travels_in_the_header_of_the_weights_and_leaves_their_bytes_equal(
    tmp_path: Path,
) -> None:
    history = History(known=True, trained_on="VoxCeleb2", groups={"sample": ["ü"], "a": []})
    weights = {f"w{i}": torch.full((3,), float(i)) for i in range(20)}
    contents = set()
    for i in range(5):
        path = tmp_path / f"{i}.safetensors"
        save_file(weights, path, metadata=history.header())
        assert read_history(path) == history
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_file_that_says_nothing_has_an_unknown_history(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.safetensors", tmp_path / "other.pt"
    save_file({"w": torch.zeros(1)}, plain)
    torch.save({"w": torch.zeros(1)}, other)
    for path in (plain, other):
        assert not read_history(path).known
        assert read_history(path).in_words() == "nobody knows what it has seen"


@pytest.mark.parametrize("text", ["", "{", '{"known": true}', "[1]"])
def test_a_damaged_history_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata={"history": text})
    with pytest.raises(ValueError, match=r"weights\.safetensors: its header holds a damaged hist"):
        read_history(path)
