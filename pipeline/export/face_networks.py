"""The networks of MTCNN as ONNX graphs, so that an exported model finds faces without torch."""

from pathlib import Path

import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from torch import nn

from pipeline.export.graph import quiet
from pipeline.serving.onnx_faces import NETWORKS, PIXELS

# Sides of what the networks look at; the first one takes whole pictures, of any size.
_SIDES = (60, 24, 48)


def write_face_networks(folder: Path) -> None:
    """Write the networks, with the weights that ship with facenet-pytorch."""
    # facenet-pytorch opens its own files as pickles, of which torch warns.
    with quiet():
        networks: list[nn.Module] = [PNet(), RNet(), ONet()]
        for name, network, side in zip(NETWORKS, networks, _SIDES, strict=True):
            # Axes of one, or of one length, would be taken for constants, or for each other.
            shape = (2, 3, side, side + 14) if name == "pnet" else (2, 3, side, side)
            axes = {0: torch.export.Dim("batch")}
            if name == "pnet":
                axes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
            torch.onnx.export(
                network.eval(),
                (torch.zeros(shape),),
                folder / f"{name}.onnx",
                input_names=[PIXELS],
                dynamic_shapes={"x": axes},
                external_data=False,
                verbose=False,
            )
