"""The test of a trained fold: thresholds and smoothing by its validation groups, then answers."""

from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from pipeline.affect.feed import Pictures
from pipeline.affect.fold_data import FoldData
from pipeline.affect.predictions import Evaluation, ask, evaluation_of, expressions_of
from pipeline.affect.recipe import AffectTask, Recipe
from pipeline.affect.results import SUBMISSION, Tested, constant_of, expression_only
from pipeline.affect.stored import CHALLENGE, read_challenge_list
from pipeline.affect.submission import answers_by_path, fill_in, write_submission
from pipeline.affect.task import EMMATask
from pipeline.affect.tuning import UNTUNED, Frames, Tuning, check_groups, frames_of, tune
from pipeline.feed.batches import evaluation_batches
from pipeline.feed.order import Rank
from pipeline.training.loop import EngineSettings


def batches_of(pictures: Pictures, fabric: Fabric, engine: EngineSettings) -> Any:
    """This device's batches of some pictures."""
    return evaluation_batches(
        pictures,
        batch_size=min(engine.micro_batch_size, engine.batch_size),
        rank=Rank(fabric.global_rank, fabric.world_size),
        num_workers=engine.num_workers,
    )


class FoldTest:
    """Asks a trained model.

    Args:
        fabric: Where it runs.
        module: With the weights of the best epoch.
        task: That it was trained for.
        data: Of the fold.
        recipe: Its answers, and how many pictures it takes at once.
    """

    def __init__(
        self,
        fabric: Fabric,
        module: nn.Module,
        task: AffectTask,
        data: FoldData,
        recipe: Recipe,
    ) -> None:
        self.fabric = fabric
        self.module = module.to(fabric.device).eval()
        self.task = task
        self.data = data
        self.recipe = recipe

    def run(self) -> Tested:
        """What the model says of the test pictures.

        Raises:
            ValueError: A group that chose thresholds and smoothing is tested.
        """
        tested_part, validation_part = self.data.part("test"), self.data.part("validation")
        tested, validation = self._evaluate(tested_part), self._evaluate(validation_part)
        check_groups(validation, tested)
        tuning = self._tune(validation, validation_part)
        answers = tuning.answers(tested, self._frames(tested_part))
        truth = self.data.part("train").truth
        return Tested(tested, answers, constant_of(truth, tested), tuning)

    def submit(self, tuning: Tuning, out: Path) -> None:
        """Answer the set's test list, into the folder of the fold."""
        pictures = self.data.test_list()
        answers = tuning.answers(self._evaluate(pictures), self._frames(pictures))
        found = answers_by_path(pictures.images, answers, self.data.classes)
        listed = read_challenge_list(self.data.inputs.data / CHALLENGE)
        whole = fill_in(found, listed, self.data.part("train").truth)
        write_submission(out / SUBMISSION, listed, whole)
        missing = len(set(listed) - set(found))
        print(f"train: {out / SUBMISSION} answers {len(listed)} lines, {missing} pictures missing")

    def _evaluate(self, pictures: Pictures) -> Evaluation:
        batches = batches_of(pictures, self.fabric, self.recipe.engine)
        asked = ask(self.fabric, self.task.answer(self.module), batches)
        if isinstance(self.task, EMMATask):
            return evaluation_of(asked)
        return expression_only(expressions_of(asked))

    def _tune(self, validation: Evaluation, pictures: Pictures) -> Tuning:
        if self.recipe.answers.thresholds == "half" and not self._smooths:
            return UNTUNED
        found = tune(validation, self._frames(pictures), radii=self.recipe.answers.smoothing)
        if self.recipe.answers.thresholds == "tuned":
            return found
        return found._replace(thresholds=UNTUNED.thresholds)

    @property
    def _smooths(self) -> bool:
        return set(self.recipe.answers.smoothing) != {0}

    def _frames(self, pictures: Pictures) -> Frames:
        """Which frames the pictures are; without smoothing it does not matter."""
        if not self._smooths:
            count = len(pictures)
            return Frames([""] * count, [0] * count)
        return frames_of(pictures.images)
