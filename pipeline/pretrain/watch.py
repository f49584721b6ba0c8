"""What a pre-training leaves while it goes on: encoders to use, pictures to look at, a count.

Files go into the scratch folder of the training first, from which a training that was stopped takes
those of the epochs before; so they are the same whether it was stopped or not.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from shutil import copyfile
from typing import Annotated, Any

from lightning_fabric import Fabric
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import int64, nn, zeros, zeros_like

from pipeline.common.encoder_weights import History
from pipeline.common.files import atomic_path
from pipeline.common.params import Section
from pipeline.pretrain.autoencoder import MaskedAutoencoder
from pipeline.pretrain.batches import SKIPPED
from pipeline.pretrain.files import write_encoder
from pipeline.pretrain.grids import save_grid
from pipeline.pretrain.task import PretrainTask
from pipeline.store.batch import Batch
from pipeline.training.devices import sum_over_devices
from pipeline.training.task import Place, Validation


class WatchSettings(Section):
    """What is written while a training goes on; none of it changes the training.

    Attributes:
        encoder_every: Epochs from one encoder to the next; 0: only the last one.
        look_at: Epochs after which held-out samples are drawn.
        samples: How many of them.
    """

    encoder_every: NonNegativeInt
    look_at: list[PositiveInt]
    samples: Annotated[int, Field(ge=1, le=64)]


class WatchedTask(PretrainTask):
    """Counts samples that could not be read, and says when an epoch was validated.

    Args:
        fabric: Over whose devices is counted.
        validation: See `PretrainTask`.
        on_epoch: Called with the number of an epoch and the model, in the first process.

    Attributes:
        skipped: By epoch, how many training samples could not be read, on all devices.
    """

    def __init__(
        self,
        fabric: Fabric,
        validation: Iterable[Batch],
        on_epoch: Callable[[int, nn.Module], None],
    ) -> None:
        super().__init__(validation)
        self.fabric = fabric
        self.on_epoch = on_epoch
        self.skipped: dict[int, int] = {}
        # Summed where the batches are: a device would wait while a number is read.
        self._own = zeros((), dtype=int64, device=fabric.device)
        self._epoch = 0

    def parts(self, batch: Batch, place: Place, size: int) -> list[Batch]:
        self._epoch = place.epoch
        skipped, counts = batch.targets[SKIPPED]
        self._own = self._own + (skipped & counts).sum()
        return super().parts(batch, place, size)

    def validate(self, fabric: Fabric, module: nn.Module) -> Validation:
        validation = super().validate(fabric, module)
        self._settle()
        if fabric.is_global_zero:
            self.on_epoch(self._epoch, module)
            if skipped := self.skipped.get(self._epoch):
                print(f"epoch {self._epoch}: {skipped} samples could not be read", flush=True)
        return validation

    def state_dict(self) -> dict[str, Any]:
        """The epoch at work, and the counts of all devices."""
        self._settle()
        return {"epoch": self._epoch, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` found."""
        self._epoch = state["epoch"]
        self.skipped = dict(state["skipped"])

    def _settle(self) -> None:
        """Add what this device counted to what all know; in every process at once."""
        counted = int(sum_over_devices(self.fabric, self._own))
        self.skipped[self._epoch] = self.skipped.get(self._epoch, 0) + counted
        self._own = zeros_like(self._own)


class Leavings:
    """The files of a training that goes on.

    Args:
        settings: Which.
        kept: Where they are kept until the training is done.
        out: Where people find them: `epochs/` and `look/` in it.
        history: Of the encoder after so many epochs.
        looked_at: A few held-out samples.
    """

    def __init__(
        self,
        settings: WatchSettings,
        kept: Path,
        out: Path,
        history: Callable[[int], History],
        looked_at: Callable[[], Batch],
    ) -> None:
        self.settings = settings
        self.kept = kept
        self.out = out
        self.history = history
        self.looked_at = looked_at
        for path in sorted(kept.glob("*/epoch*")):
            self._show(path)

    def after(self, epoch: int, model: nn.Module) -> None:
        """Write what is wanted of an epoch."""
        assert isinstance(model, MaskedAutoencoder)
        every = self.settings.encoder_every
        if every and epoch % every == 0:
            path = self.kept / f"epochs/epoch{epoch:04}.safetensors"
            write_encoder(path, model.encoder, self.history(epoch))
            self._show(path)
        if epoch in self.settings.look_at:
            path = self.kept / f"look/epoch{epoch:04}.png"
            save_grid(path, model, self.looked_at())
            self._show(path)

    def _show(self, path: Path) -> None:
        with atomic_path(self.out / path.relative_to(self.kept)) as temporary:
            copyfile(path, temporary)
