"""The mean of what a model says of several views of a clip.

Shape letters: B clips, T frames that the model reads, V samplings of T frames, I side of a frame in
pixels, C classes.
"""

import torch
from torch import Tensor, nn

from pipeline.feed.views import boxes_to_frame, crops, points_to_frame
from pipeline.mtcae.model import Predictions


class ViewMean(nn.Module):
    """A model that is asked about every sampling and every window of a clip.

    Probabilities are means over all views; boxes and landmarks, brought back to the whole frame,
    over the windows of a frame. With one of each, it says what the model says.

    Args:
        module: From frames (B, T, 3, I, I) to `Predictions`.
        num_frames: T.
        num_crops: Windows; see `pipeline.feed.views.crops`.
    """

    def __init__(self, module: nn.Module, *, num_frames: int, num_crops: int) -> None:
        super().__init__()
        self.module = module
        self.num_frames = num_frames
        self.num_crops = num_crops

    def forward(self, inputs: Tensor) -> Predictions:
        """Predictions for frames (B, V * T, 3, I, I), or for stored tokens, which have one view.

        Boxes and points are those of all V * T frames.
        """
        if inputs.ndim != 5 or (self.num_crops == 1 and inputs.shape[1] == self.num_frames):
            said: Predictions = self.module(inputs)
            return said
        segments = inputs.shape[1] // self.num_frames
        parts = [self._over_windows(inputs[:, i::segments]) for i in range(segments)]
        log_probabilities = torch.stack([part.logits for part in parts]).logsumexp(dim=0)
        boxes = [part.boxes for part in parts if part.boxes is not None]
        points = [part.points for part in parts if part.points is not None]
        return Predictions(
            # Frame i of every sampling, then frame i + 1: the order in time.
            torch.stack(boxes, dim=2).flatten(1, 2) if boxes else None,
            torch.stack(points, dim=2).flatten(1, 2) if points else None,
            log_probabilities,
        )

    def _over_windows(self, frames: Tensor) -> Predictions:
        """Means over the windows of frames (B, T, 3, I, I); of probabilities the log of the sum."""
        logits, boxes, points = [], [], []
        for view, window in crops(frames, self.num_crops):
            said: Predictions = self.module(view)
            logits.append(said.logits.float().log_softmax(dim=1))
            if said.boxes is not None and said.points is not None:
                boxes.append(boxes_to_frame(said.boxes.float(), window))
                points.append(points_to_frame(said.points.float(), window))
        return Predictions(
            torch.stack(boxes).mean(dim=0) if boxes else None,
            torch.stack(points).mean(dim=0) if points else None,
            torch.stack(logits).logsumexp(dim=0),
        )
