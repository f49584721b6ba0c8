"""How the files of an export are used, for its model card."""

_ONNX = """\
`python example.py face1.jpg face2.jpg ...` answers for pictures of a face; in code:

```python
import json, numpy as np, onnxruntime

config = json.load(open("config.json"))
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
# (clips, num_frames, image_size, image_size, 3), uint8, RGB, of one face in the order of time
side = config["image_size"]
frames = np.zeros((1, config["num_frames"], side, side, 3), np.uint8)
said = dict(zip(config["outputs"], session.run(None, {"frames": frames})))
config["classes"][said["probabilities"][0].argmax()]
```

| output | what it is |
| --- | --- |
| `probabilities` | (clips, classes), in the order of `classes` in config.json |
| `boxes` | (clips, num_frames, 4): x, y of the top left corner, width, height |
| `points` | (clips, num_frames, 5, 2): x, y of left eye, right eye, nose, mouth corners |

Places are fractions of the frame; a model of structure stl has none. Normalisation is in the graph.
Needed are numpy and onnxruntime, for example.py also pillow (requirements.txt). The project's
`python -m commands.predict VIDEO --model <this folder>` finds and follows the faces as well, by the
networks of MTCNN beside the model; what it needs is in requirements-predict.txt, and no torch."""

_FOLDER = """\
`python example.py face1.jpg face2.jpg ...` answers for pictures of a face; in code, with this
folder on `sys.path`:

```python
from pathlib import Path
from mtcae_dfer.mtcae.saved import load_model

model, metadata = load_model(Path("model.safetensors"))  # a torch.nn.Module; model.json
# (clips, num_frames, 3, image_size, image_size), uint8, RGB, of one face in the order of time
said = model(frames)  # .logits (clips, classes), .boxes, .points as fractions of the frame
```

`mtcae_dfer` holds copies of the modules that the model takes; requirements.txt is what they
need."""

_HUGGING_FACE = """\
This is the encoder alone, without the decoders and heads that name expressions:

```python
from transformers import VideoMAEImageProcessor, VideoMAEModel

processor = VideoMAEImageProcessor.from_pretrained(".")
encoder = VideoMAEModel.from_pretrained(".")
# frames: a list of RGB pictures of one face in the order of time
tokens = encoder(**processor(frames, return_tensors="pt")).last_hidden_state
```"""

USAGE = {"onnx": _ONNX, "folder": _FOLDER, "huggingface": _HUGGING_FACE}
