from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small import task_model, video_encoder

from pipeline.export.graph import random_frames, write_int8, write_onnx
from pipeline.mtcae.structures import STRUCTURES, Structure
from pipeline.mtcae.view_mean import ViewMean

SIDE, FRAMES, CLASSES = 32, 4, 3


def small_views(
    structure: Structure, *, conv: bool = False, num_crops: int = 1, wide: bool = False
) -> ViewMean:
    """A structure whose probabilities and places are spread widely."""
    torch.manual_seed(0)
    encoder = video_encoder(
        dim=64 if wide else 24,
        depth=1,
        num_heads=2,
        image_size=SIDE,
        num_frames=FRAMES,
        stem="conv" if conv else "linear",
    )
    model = task_model(
        encoder,
        arch=structure.arch,
        decoder=structure.decoder,
        num_classes=CLASSES,
        dim=16,
        num_heads=2,
        head_dim=8,
        num_layers=1,
    )
    for head in model.tasks.heads.values():
        torch.nn.init.normal_(head.proj.weight, std=0.3)
    return ViewMean(model, num_frames=FRAMES, num_crops=num_crops).eval()


def said_by_torch(views: ViewMean, frames: np.ndarray) -> dict[str, np.ndarray]:
    """From pixels in [0, 1] with the channel first."""
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3) / 255
    with torch.no_grad():
        said = views(pixels)
    answers = {"probabilities": said.logits.softmax(dim=1), "boxes": said.boxes}
    answers["points"] = said.points
    return {name: values.numpy() for name, values in answers.items() if values is not None}


def said_by_onnx(path: Path, frames: np.ndarray) -> dict[str, np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"frames": frames}), strict=True))


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.name)
def test_onnx_says_what_torch_says_of_any_number_of_clips(
    structure: Structure, tmp_path: Path
) -> None:
    # Both stems occur.
    views = small_views(structure, conv=structure.decoder == "mlp")
    write_onnx(tmp_path / "model.onnx", views, num_stored=FRAMES, image_size=SIDE)
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    for count in (1, 3):
        frames = random_frames(count, num_stored=FRAMES, image_size=SIDE, seed=count)
        expected = said_by_torch(views, frames)
        found = said_by_onnx(tmp_path / "model.onnx", frames)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-4, rtol=0)
        if count > 1:
            # Otherwise equality would say little.
            assert np.ptp(expected["probabilities"], axis=0).max() > 0.01


def test_several_samplings_and_windows_are_averaged_in_the_graph(tmp_path: Path) -> None:
    views = small_views(Structure("stl", "vit"), num_crops=2)
    write_onnx(tmp_path / "model.onnx", views, num_stored=2 * FRAMES, image_size=SIDE)
    # Even brightness: nothing lies between two levels when windows are enlarged.
    frames = random_frames(2, num_stored=2 * FRAMES, image_size=SIDE, seed=0)
    frames[:] = frames[:, :, :1, :1]
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        single = [
            views.module(pixels[:, segment::2]).logits.softmax(dim=1).numpy() for segment in (0, 1)
        ]
    found = said_by_onnx(tmp_path / "model.onnx", frames)
    np.testing.assert_allclose(found["probabilities"], np.mean(single, axis=0), atol=1e-5)


def test_8_bit_matrices_are_smaller_and_nearly_as_exact(tmp_path: Path) -> None:
    views = small_views(Structure("stl", "vit"), wide=True)
    write_onnx(tmp_path / "model.onnx", views, num_stored=FRAMES, image_size=SIDE)
    write_int8(tmp_path / "int8.onnx", tmp_path / "model.onnx")
    sizes = [(tmp_path / name).stat().st_size for name in ("model.onnx", "int8.onnx")]
    # A byte in place of four for the numbers in a block's matrices: 4 d * d and 2 * 4 d * d.
    assert sizes[0] - sizes[1] == pytest.approx(3 * 12 * 64**2, rel=0.1)
    frames = random_frames(3, num_stored=FRAMES, image_size=SIDE, seed=0)
    exact, rounded = (
        said_by_onnx(tmp_path / name, frames)["probabilities"]
        for name in ("model.onnx", "int8.onnx")
    )
    assert 0 < np.abs(exact - rounded).max() < 0.1
