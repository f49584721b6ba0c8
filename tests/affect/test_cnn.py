from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from small import NEW
from timm import create_model
from torch import Tensor, nn

from pipeline.affect.cnn import CNNSettings, FrozenCNN, NoCNN, ScoreTable
from pipeline.affect.cnn_files import CNNCard, open_scores, save_cnn
from pipeline.affect.dan import DAN
from pipeline.affect.labels import LabelledImage, Labels
from pipeline.store.batch import Batch

AFFECTNET = ("neutral", "happy", "sad", "surprised", "fear", "disgust", "angry", "contempt")


def settings(**changes: Any) -> CNNSettings:
    plain: dict[str, Any] = {
        "weights": "some",
        "family": "auto",
        "classes": (),
        "size": 0,
        "normalisation": "imagenet",
    }
    return CNNSettings.model_validate(plain | changes)


def batch(pixels: Tensor, *names: str) -> Batch:
    ids = list(names) or [str(i) for i in range(len(pixels))]
    return Batch(ids=ids, groups=["g"] * len(ids), inputs=pixels, targets={})


def pictures(count: int, side: int = 32) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=random, dtype=torch.uint8)


def image(path: str) -> LabelledImage:
    return LabelledImage(path.partition(".")[0], path, "g", "train", Labels())


def save_dan(file: Path, num_classes: int, prefix: str = "") -> DAN:
    """As the authors do, with what their optimiser held."""
    torch.manual_seed(0)
    model = DAN(num_classes)
    weights = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({"iter": 5, "model_state_dict": weights, "optimizer_state_dict": {}}, file)
    return model.eval()


@pytest.fixture(scope="module")
def dan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DAN]:
    file = tmp_path_factory.mktemp("dan") / "affecnet8_epoch5.pth"
    return file, save_dan(file, 8, prefix="module.")


def test_dans_checkpoint_is_known_by_its_keys_and_brings_its_class_names(
    dan: tuple[Path, DAN],
) -> None:
    file, model = dan
    cnn = open_scores(settings(size=64), file, [])
    assert cnn.classes == AFFECTNET
    pixels = pictures(2, 64)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    with torch.no_grad():
        expected = model((pixels / 255 - mean) / std)
    torch.testing.assert_close(cnn(batch(pixels)), expected)


def test_a_frozen_cnn_stays_in_evaluation_mode_whatever_it_is_part_of(
    dan: tuple[Path, DAN],
) -> None:
    cnn = open_scores(settings(size=32), dan[0], [])
    assert isinstance(cnn, FrozenCNN)
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    parent = nn.Sequential(cnn).train()
    assert not any(module.training for module in cnn.modules())
    assert parent.training
    whole = cnn(batch(pictures(4)))
    # In train mode, statistics would be those of the batch.
    torch.testing.assert_close(cnn(batch(pictures(4)[:1])), whole[:1], rtol=1e-3, atol=1e-3)
    assert not whole.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in cnn.state_dict().items())


def test_another_number_of_classes_than_are_named_is_refused(
    dan: tuple[Path, DAN], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="says 8 numbers of a picture, and 2 classes are named"):
        open_scores(settings(size=32, classes=("happy", "sad")), dan[0], [])
    save_dan(tmp_path / "seven.pth", 7)
    with pytest.raises(ValueError, match="7 classes, and DAN's seven of AffectNet and of RAF-DB"):
        open_scores(settings(size=32), tmp_path / "seven.pth", [])
    seven = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    cnn = open_scores(settings(size=32, classes=seven), tmp_path / "seven.pth", [])
    assert cnn.classes == ("surprised", "fear", "disgust", "happy", "sad", "angry", "neutral")


class Pickled(nn.Module):
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("has_run"),))


@pytest.mark.parametrize("family", ["auto", "dan", "timm:resnet10t"])
def test_a_pickled_network_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Pickled(), tmp_path / "enet_b0_8.pt")
    with pytest.raises(ValueError, match="never loaded because they can run code"):
        open_scores(
            settings(family=family, classes=AFFECTNET, size=32), tmp_path / "enet_b0_8.pt", []
        )
    assert not (tmp_path / "has_run").exists()


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"fc.bias": torch.zeros(8)}, tmp_path / "some.safetensors")
    with pytest.raises(ValueError, match="does not say which network its weights are of"):
        open_scores(settings(), tmp_path / "some.safetensors", [])
    with pytest.raises(ValueError, match="DAN: 274 weights are missing"):
        open_scores(settings(family="dan"), tmp_path / "some.safetensors", [])
    network = create_model("resnet10t", num_classes=5)
    save_file(network.state_dict(), tmp_path / "five.safetensors")
    with pytest.raises(ValueError, match=r"resnet10t with 8 classes: fc\.weight is \(5, 512\)"):
        open_scores(
            settings(family="timm:resnet10t", classes=AFFECTNET, size=32),
            tmp_path / "five.safetensors",
            [],
        )
    with pytest.raises(ValueError, match="does not say its classes or its size"):
        open_scores(settings(family="timm:resnet10t"), tmp_path / "five.safetensors", [])


def test_a_network_that_this_project_saved_says_all_that_must_be_known(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_model("resnet10t", num_classes=3)
    card = CNNCard(
        family="timm:resnet10t",
        classes=("happy", "sad", "other"),
        size=32,
        normalisation="half",
        history=NEW.with_groups("rendered", ["person7"]),
    )
    save_cnn(tmp_path / "own.safetensors", network, card)
    cnn = open_scores(settings(), tmp_path / "own.safetensors", [])
    assert cnn.classes == card.classes
    pixels = pictures(2)
    with torch.no_grad():
        expected = network.eval()((pixels / 255 - 0.5) / 0.5)
    torch.testing.assert_close(cnn(batch(pixels)), expected)
    # Pictures of another size are resized first.
    larger = pixels.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.nn.functional.cosine_similarity(cnn(batch(larger)), expected).min() > 0.99


def save_onnx(file: Path, num_classes: int, num_pictures: int | str, classes: str = "") -> Tensor:
    """The mean of each channel, times a matrix that is returned."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    matrix = np.random.default_rng(0).normal(size=(3, num_classes)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["means"]),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["output"]),
        ],
        "means",
        [helper.make_tensor_value_info("input", kind, [num_pictures, 3, 16, 16])],
        [helper.make_tensor_value_info("output", kind, [num_pictures, num_classes])],
        [onnx.numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if classes:
        helper.set_model_props(model, {"classes": classes})
    onnx.save(model, file)
    return torch.from_numpy(matrix)


@pytest.mark.parametrize("num_pictures", ["batch", 1])
def test_an_onnx_file_is_computed_as_it_says(tmp_path: Path, num_pictures: int | str) -> None:
    file = tmp_path / "small.onnx"
    matrix = save_onnx(file, 3, num_pictures, "Anger, disgusted,happy")
    cnn = open_scores(settings(normalisation="half"), file, [])
    assert cnn.classes == ("angry", "disgust", "happy")
    pixels = pictures(4, 16)
    expected = ((pixels / 255 - 0.5) / 0.5).mean(dim=(2, 3)) @ matrix
    torch.testing.assert_close(cnn(batch(pixels)), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="says 3 numbers of a picture, and 8 classes"):
        open_scores(settings(classes=AFFECTNET), file, [])


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"x\.onnx cannot be read as an ONNX file"):
        open_scores(settings(classes=AFFECTNET), tmp_path / "x.onnx", [])


def test_a_table_of_scores_stands_in_for_a_cnn(tmp_path: Path) -> None:
    rows = {"path": ["b.jpg", "a.jpg", "c.jpg"], "Anger": [1, 2, 3], "sadness": [4.5, 5, 6]}
    pd.DataFrame(rows).to_csv(tmp_path / "scores.csv", index=False)
    images = [image("a.jpg"), image("b.jpg")]
    cnn = open_scores(settings(), tmp_path / "scores.csv", images)
    assert isinstance(cnn, ScoreTable)
    assert cnn.classes == ("angry", "sad")
    assert cnn(batch(pictures(2), "b", "a")).tolist() == [[1, 4.5], [2, 5]]
    pd.DataFrame(rows).to_parquet(tmp_path / "scores.parquet")
    cnn = open_scores(settings(classes=("sad", "angry")), tmp_path / "scores.parquet", images)
    assert cnn(batch(pictures(1), "a")).tolist() == [[5, 2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": ["a.jpg", "x.jpg"]}, r"no scores of 1 of 2 images, such as b\.jpg"),
        ({"path": ["a.jpg", "a.jpg"]}, r"a\.jpg twice"),
        ({"sad": [1, "much"]}, r"a score of b\.jpg is no number"),
        ({"sad": [1, None]}, r"a score of b\.jpg is no number"),
        ({"sadness": [1, 2]}, "each once, are needed"),
    ],
)
def test_a_table_that_lacks_scores_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    rows = {"path": ["a.jpg", "b.jpg"], "sad": [1, 2]} | changes
    pd.DataFrame(rows).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(ValueError, match=message):
        open_scores(settings(), tmp_path / "scores.csv", [image("a.jpg"), image("b.jpg")])
    with pytest.raises(ValueError, match="missing: joy"):
        open_scores(settings(classes=("joy",)), tmp_path / "scores.csv", [])


def test_without_weights_there_are_no_scores(tmp_path: Path) -> None:
    cnn = open_scores(settings(weights=""), tmp_path, [])
    assert isinstance(cnn, NoCNN)
    assert cnn.classes == ()
    assert cnn(batch(pictures(3))).shape == (3, 0)
