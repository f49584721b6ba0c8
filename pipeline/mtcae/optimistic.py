"""The score as most of the field publishes it: of the epoch that is best on the test fold.

It is optimistic, because the test clips choose what they then judge. Here it stands beside the
score of the epoch that validation chose, and chooses nothing.
"""

from dataclasses import dataclass, field

from pipeline.mtcae.predictions import Evaluation
from pipeline.scores.metrics import recalls


@dataclass
class Optimistic:
    """The best epoch on the test clips so far, by UAR and, where that is equal, by WAR.

    Attributes:
        epochs: That were seen.
        epoch: The best one, from 1; 0 before the first.
        uar: Of that epoch.
        war: Of that epoch.
        predicted: The class index that it gave each clip, by the clip's name.
    """

    epochs: int = 0
    epoch: int = 0
    uar: float = -1.0
    war: float = -1.0
    predicted: dict[str, int] = field(default_factory=dict)

    def see(self, tested: Evaluation, num_classes: int) -> None:
        """Count an epoch, and keep its predictions if they are the best."""
        self.epochs += 1
        predicted = tested.probabilities.argmax(axis=1)
        scores = recalls(tested.labels, predicted, num_classes)
        if (scores.uar, scores.war) > (self.uar, self.war):
            self.epoch, self.uar, self.war = self.epochs, scores.uar, scores.war
            self.predicted = dict(zip(tested.clips, predicted.tolist(), strict=True))
