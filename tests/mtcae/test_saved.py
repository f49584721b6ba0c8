import json
from pathlib import Path

import pytest
import torch
from small import NEW, task_model, video_encoder
from torch import Tensor, nn

from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import VideoMAEEncoder
from pipeline.models.vit import IMAGENET_STD
from pipeline.mtcae.model import MTCAE
from pipeline.mtcae.saved import load_model, save_model
from pipeline.mtcae.structures import STRUCTURES

DIM = 24
METADATA = {"classes": ["angry", "sad"], "data_set": "sample", "fold": 2, "metrics": {"uar": 0.5}}


def encoder() -> VideoMAEEncoder:
    torch.manual_seed(0)
    return video_encoder(dim=DIM, depth=2, num_heads=2, image_size=32, num_frames=4).eval()


def model(arch: str, decoder: str) -> MTCAE:
    """Every parameter, biases and norms included, has a value that could not be a default."""
    built = task_model(
        encoder(),
        arch=arch,
        decoder=decoder,
        num_classes=6,
        dim=16,
        num_heads=3,
        head_dim=16,
        num_layers=2,
        dropout=0.2,
        norm_before_pool=True,
    )
    generator = torch.Generator().manual_seed(7)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    built.encoder.mean.fill_(0.25)
    return built.eval()


def frames() -> Tensor:
    return torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("arch", "decoder"), STRUCTURES)
def test_loaded_model_predicts_what_the_saved_one_did_to_the_bit(
    arch: str, decoder: str, tmp_path: Path
) -> None:
    saved = model(arch, decoder)
    path = tmp_path / "model.safetensors"
    save_model(path, saved, metadata=METADATA, history=NEW)
    loaded, metadata = load_model(path)
    assert metadata == METADATA
    assert not any(module.training for module in loaded.modules())
    assert loaded.num_classes == saved.num_classes
    assert loaded.encoder.size == saved.encoder.size
    assert loaded.encoder.num_frames == saved.encoder.num_frames
    assert loaded.tasks.structure == saved.tasks.structure
    assert loaded.tasks.size == saved.tasks.size
    for ours, theirs in zip(saved(frames()), loaded(frames()), strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_model_json_says_what_the_model_is(tmp_path: Path) -> None:
    save_model(
        tmp_path / "model.safetensors", model("cascaded", "vit"), metadata=METADATA, history=NEW
    )
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["metadata"] == METADATA
    assert description["normalisation"] == {"mean": [0.25] * 3, "std": list(IMAGENET_STD)}
    assert description["encoder_size"]["dim"] == DIM
    assert description["arch"] == "cascaded"


def test_a_model_without_a_format_is_refused_as_one_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, model("stl", "vit"), metadata=METADATA, history=NEW)
    description = json.loads((tmp_path / "model.json").read_text())
    del description["format"]
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(
        ValueError, match=r"model\.json has format 1, and this version reads format 5: train"
    ):
        load_model(path)


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        save_model(
            folder / "model.safetensors", model("cascaded", "vit"), metadata=METADATA, history=NEW
        )
        assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]
        contents.append([p.read_bytes() for p in sorted(folder.iterdir())])
    assert contents[0] == contents[1]


def test_metadata_that_json_does_not_know_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_model(
            tmp_path / "model.safetensors",
            model("stl", "vit"),
            metadata={"uar": float("nan")},
            history=NEW,
        )
    assert list(tmp_path.iterdir()) == []


def test_encoder_of_a_saved_model_can_start_another_with_its_normalisation(tmp_path: Path) -> None:
    saved = model("cascaded", "vit")
    save_model(tmp_path / "model.safetensors", saved, metadata={}, history=NEW)
    other = encoder()
    report = load_encoder(other, tmp_path / "model.safetensors")
    assert report.family == "model saved by this project"
    assert report.unexpected == []
    assert torch.equal(other.mean, torch.full((3, 1, 1), 0.25))
    assert torch.equal(other(frames()), saved.encoder(frames()))
