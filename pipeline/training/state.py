"""All that changes in a training, as one object that is saved and restored."""

from collections.abc import Mapping
from typing import Any

from lightning_fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from pipeline.training.devices import gather
from pipeline.training.history import Progress
from pipeline.training.random_state import random_state, set_random_state
from pipeline.training.task import Remembers


class TrainingState:
    """Model, average, optimiser, schedule, progress, the best weights, and the random generators.

    Args:
        fabric: The devices.
        model: That is trained.
        optimizer: Over its parameters.
        schedule: Of the optimiser.
        task: What it remembers of the epochs is part of the state.
        ema: Decay of the moving average of the weights; 0: there is none.

    Attributes:
        module: The model as Fabric wraps it, for training.
        wrapped_optimizer: The optimiser likewise.
        eval_model: Which is validated and kept: the average, or the model itself.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        optimizer: AdamW,
        schedule: LambdaLR | ReduceLROnPlateau,
        task: Remembers,
        ema: float,
    ) -> None:
        self.fabric = fabric
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.task = task
        self.module, self.wrapped_optimizer = fabric.setup(model, optimizer)
        self.average = ModelEmaV3(model, decay=ema) if ema else None
        self.eval_model: nn.Module = self.average.module if self.average else model
        self.best_weights: dict[str, Tensor] = {}
        self.progress = Progress()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; to be called in every process, because each has generators."""
        return {
            "model": trained_weights(self.model),
            "average": trained_weights(self.eval_model) if self.average else {},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "task": self.task.state_dict(),
            "best_weights": self.best_weights,
            "progress": vars(self.progress),
            "random": gather(self.fabric, random_state()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put everything back to what `state_dict` found."""
        self.model.load_state_dict(state["model"], strict=False)
        if self.average:
            self.average.module.load_state_dict(state["average"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.task.load_state_dict(state["task"])
        self.best_weights = state["best_weights"]
        self.progress = Progress(**state["progress"])
        # On another number of devices, dropout draws anew; everything else goes on as it was.
        if len(state["random"]) == self.fabric.world_size:
            set_random_state(state["random"][self.fabric.global_rank])

    def keep_if_best(self, rank: tuple[float, ...]) -> None:
        """Remember the weights of the epoch at work if none before it has a higher rank."""
        if not self.best_weights or rank > self.progress.best_rank:
            self.progress.best_rank, self.progress.best_epoch = rank, self.progress.epoch
            self.best_weights = trained_weights(self.eval_model)

    def restore_best(self) -> None:
        """Give the model the weights of its best epoch."""
        self.model.load_state_dict(self.best_weights, strict=False)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy, on the CPU, of the weights that training changes: nothing else of the model does."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
