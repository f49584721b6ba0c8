"""The models that are measured: those of params.yaml, and a small one of the paper's frames."""

from pathlib import Path

import yaml

from pipeline.models.start import EncoderTraining
from pipeline.mtcae.model import MTCAE, ModelSize
from pipeline.mtcae.recipe import build_model
from pipeline.mtcae.structures import Structure

NUM_CLASSES = 7  # RAVDESS
NUM_FRAMES = 16
_PARAMS = Path(__file__).parents[1] / "params.yaml"
_PRESETS = {
    name: ModelSize.model_validate(preset)
    for name, preset in yaml.safe_load(_PARAMS.read_text(encoding="utf-8"))["models"].items()
}


def _narrow() -> ModelSize:
    """1568 tokens as in the paper, where tiny has 98."""
    tiny, large = _PRESETS["tiny"], _PRESETS["large"]
    frames = large.encoder.model_dump(include={"image_size", "patch_size", "tubelet_size"})
    return ModelSize(
        encoder=tiny.encoder.model_copy(update={**frames, "dim": 192, "num_heads": 3}),
        decoder=tiny.decoder.model_copy(update={"dim": 96}),
    )


MODELS = {"narrow": _narrow(), **_PRESETS}


def random_model(model: str, structure: Structure, *, frozen: bool = False) -> MTCAE:
    """A structure with random weights, on torch's default device."""
    # A frozen encoder would ask for a checkpoint.
    training = EncoderTraining(mode="full", drop_path=0.0, checkpointing=False)
    built = build_model(
        structure,
        MODELS[model],
        training,
        None,
        num_frames=NUM_FRAMES,
        num_classes=NUM_CLASSES,
    )
    if frozen:
        built.encoder.freeze()
    return built
