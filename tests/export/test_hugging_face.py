import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small import NEW, video_encoder

from pipeline.export.hugging_face import write_hugging_face
from pipeline.models.checkpoints import load_encoder
from pipeline.models.encoder import VideoMAEEncoder

transformers = pytest.importorskip("transformers")


def small_encoder() -> VideoMAEEncoder:
    """With biases, norms and a normalisation of its own."""
    torch.manual_seed(0)
    encoder = video_encoder(dim=24, depth=2, num_heads=2, image_size=32, num_frames=4)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(std=0.1)
        encoder.norm.weight += 1
    encoder.mean.fill_(0.4)
    encoder.std.copy_(torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1))
    return encoder.eval()


@torch.no_grad()
def test_transformers_gives_the_tokens_of_the_encoder(tmp_path: Path) -> None:
    encoder = small_encoder()
    write_hugging_face(tmp_path, encoder, NEW)
    theirs, report = transformers.VideoMAEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    processor = transformers.VideoMAEImageProcessor.from_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    pixels = processor(pictures, return_tensors="pt")
    tokens = theirs.eval()(**pixels).last_hidden_state
    own = encoder(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[None])
    torch.testing.assert_close(tokens, own, atol=1e-5, rtol=1e-5)


def test_the_file_comes_back_as_the_encoder_that_it_was(tmp_path: Path) -> None:
    encoder = small_encoder()
    write_hugging_face(tmp_path, encoder, NEW)
    back = video_encoder(dim=24, depth=2, num_heads=2, image_size=32, num_frames=4)
    load_encoder(back, tmp_path / "model.safetensors")
    for name, tensor in encoder.named_parameters():
        assert torch.equal(back.get_parameter(name), tensor), name
    preprocessor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (preprocessor["image_mean"], preprocessor["image_std"]) == ([0.4] * 3, [0.2, 0.25, 0.3])


def test_a_convolutional_stem_is_no_videomae(tmp_path: Path) -> None:
    encoder = video_encoder(
        dim=24, depth=1, num_heads=2, image_size=32, num_frames=4, patch_size=8, stem="conv"
    )
    with pytest.raises(ValueError, match="stem 'conv' is no VideoMAE"):
        write_hugging_face(tmp_path, encoder, NEW)
