"""Encoder weights by name: where each of them is, what it is, and how it gets here.

A file in weights/ is either a card, which describes weights that can be fetched, or such weights
themselves, put there by hand.
"""

import os
import shutil
from pathlib import Path
from typing import Annotated, Literal

import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from pydantic import Field, PositiveInt, ValidationError, model_validator

from pipeline.acquire.download import check_space, download
from pipeline.acquire.http import DownloadFailed, open_session
from pipeline.common.encoder_weights import ALLOW_SEEN, CARD, CHECKPOINT, History, read_history
from pipeline.common.files import atomic_path, sha256_of, write_json
from pipeline.common.hosts import RetryPolicy, public
from pipeline.common.params import Section

# The name of no weights.
FROM_SCRATCH = "from_scratch"
_LARGEST_CARD = 10_000  # bytes


class Card(Section):
    """What is known of published weights.

    Attributes:
        file: Its name, also in the repository.
        page: For people.
        repository: On Hugging Face.
        revision: Of the repository: a commit, or a branch, whose file may change.
        address: Elsewhere; with neither, the file is fetched by hand from the page.
        size: In bytes.
        sha256: In hexadecimal, where the source publishes it.
        family: Of the layout of its tensors.
        model: The preset of params.yaml that has its size.
        licence: As the source states it.
        accept_licence: Whether it must be accepted in params.yaml before anything is fetched.
        trained_on: What the encoder has seen.
    """

    file: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    page: str
    repository: str | None = None
    revision: str = "main"
    address: str | None = None
    size: PositiveInt | None = None
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    family: str
    model: Literal["small", "base", "base_160", "large", "vjepa_large", "vjepa2_large"]
    licence: str
    accept_licence: bool
    trained_on: str

    @model_validator(mode="after")
    def _can_be_checked(self) -> "Card":
        if self.address and not (self.size and self.sha256):
            raise ValueError("an address needs size and sha256; Hugging Face tells them itself")
        return self


def read_card(path: Path) -> Card | None:
    """The card in a file; None where the file holds weights or is `from_scratch`.

    Raises:
        FileNotFoundError: There is no such file; the message lists the names that there are.
        ValueError: A card with something wrong in it.
    """
    if not path.is_file():
        names = ", ".join(sorted(cards(path.parent)))
        raise FileNotFoundError(
            f"encoder.weights: {path.name} is neither a name ({FROM_SCRATCH}, {names}) nor a file "
            f"in {path.parent}/; put your file, or a link to it, there"
        )
    if path.name == FROM_SCRATCH or path.stat().st_size > _LARGEST_CARD:
        return None
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or "file" not in values:
        return None
    try:
        return Card.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


def cards(folder: Path) -> dict[str, Card]:
    """All cards of a folder by name."""
    found = {path.name: read_card(path) for path in sorted(folder.iterdir()) if path.is_file()}
    return {name: card for name, card in found.items() if card}


def provide(
    source: Path,
    out: Path,
    downloads: Path,
    *,
    accept_licence: bool,
    policy: RetryPolicy,
    hugging_face: str,
    allow_seen: bool = False,
) -> str:
    """Put the weights that a file in weights/ names into a folder, with what is known of them.

    Args:
        source: A card, weights, or `from_scratch`.
        out: Gets `checkpoint` (but from scratch) and `card.json`.
        downloads: Where fetched files stay.
        accept_licence: Whether the user accepts the licence.
        policy: How long to wait for a host, and how often to ask it.
        hugging_face: Address of the hub.
        allow_seen: Whether those may be tested whom the weights have seen.

    Returns:
        One line about what was done.

    Raises:
        DownloadFailed: The file cannot be had, or is not the announced one.
        PermissionError: The licence is not accepted; the message shows it.
        FileNotFoundError: See `read_card`; or it must be fetched by hand.
    """
    card = read_card(source)
    out.mkdir(parents=True, exist_ok=True)
    known: dict[str, object] = {"name": source.name}
    if allow_seen:
        known[ALLOW_SEEN] = True
    if source.name == FROM_SCRATCH:
        history = History.empty()
        line = "the encoder starts from random numbers"
    else:
        path = source
        if card:
            folder = downloads / source.name
            path = fetch(card, folder, accept_licence, policy, hugging_face)
            known |= card.model_dump(include={"family", "licence", "page"})
            history = History(known=True, trained_on=card.trained_on, groups={})
        else:
            history = read_history(path)
        known["sha256"] = found = sha256_of(path)
        if card and card.sha256 and found != card.sha256:
            raise DownloadFailed(
                f"{path} has the sha256 {found}, and its source publishes {card.sha256}: remove it "
                "to have it fetched again"
            )
        link(path, out / CHECKPOINT)
        line = f"{path}, {path.stat().st_size / 1e6:.0f} MB, sha256 {known['sha256']}"
    write_json(out / CARD, known | {"history": history.model_dump()})
    return line


def fetch(
    card: Card, folder: Path, accept_licence: bool, policy: RetryPolicy, hugging_face: str
) -> Path:
    """The file of a card, fetched unless it is in the folder; see `provide`."""
    path = folder / card.file
    by_hand = f"fetch {card.file} from {card.page} by hand and put it at {path}."
    if card.accept_licence and not accept_licence:
        raise PermissionError(
            f"{card.file} is published under: {card.licence}\nRead it at {card.page}. Nothing was "
            "fetched. If you accept it, set encoder.accept_licence to true in params.yaml, or add "
            "-S encoder.accept_licence=true to `dvc exp run`."
        )
    if not path.is_file():
        if not (card.repository or card.address):
            raise FileNotFoundError(f"no program can get it: {by_hand}")
        check_space(folder, card.size or 0)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if card.repository:
                _fetch_from_hub(card, folder, policy, hugging_face)
            else:
                _fetch_from_address(card, path, policy)
        except DownloadFailed as failure:
            raise DownloadFailed(f"{failure} Or {by_hand}") from failure
    return path


def _fetch_from_address(card: Card, path: Path, policy: RetryPolicy) -> None:
    assert card.address
    assert card.size
    print(f"weights: fetching {card.file} from {public(card.address)}", flush=True)
    download(
        open_session(policy),
        card.address,
        path,
        checksum=f"sha256:{card.sha256}",
        size=card.size,
        policy=policy,
    )


def _fetch_from_hub(card: Card, folder: Path, policy: RetryPolicy, hugging_face: str) -> None:
    """With huggingface_hub, which goes on where it was interrupted."""
    assert card.repository
    print(f"weights: fetching {card.file} of {card.repository} from {hugging_face}", flush=True)
    try:
        hf_hub_download(
            card.repository,
            card.file,
            revision=card.revision,
            local_dir=folder,
            endpoint=hugging_face,
            etag_timeout=policy.connect_s,
            token=False,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DownloadFailed(
            f"{card.repository} on {hugging_face}: {reason} Behind a proxy, HTTPS_PROXY names it."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def link(path: Path, target: Path) -> None:
    """Make a file appear at another place too, without a copy where the file system can."""
    with atomic_path(target) as temporary:
        try:
            os.link(path.resolve(), temporary)
        except OSError:
            shutil.copyfile(path, temporary)
