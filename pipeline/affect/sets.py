"""The sets of images by name: what each is told by params.yaml, and how it is read."""

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from pipeline.affect import lsd, rendered, rendered_plan
from pipeline.affect.choices import SetName
from pipeline.affect.custom_table import read_table
from pipeline.affect.labels import EXPRESSIONS, LabelledImage, Labels
from pipeline.affect.listing import ImageFolder, Listing
from pipeline.affect.s_aff_wild2 import PUBLISHED, compare_counts, group_of, read_annotations
from pipeline.affect.submission import read_test_list
from pipeline.common.clips import unique_slugs
from pipeline.common.params import Section


class SAffWild2Settings(Section):
    """Lists and pictures as published.

    Attributes:
        test_list: The challenge's list of images to be answered, in the folder of the set; empty
            for none.
    """

    test_list: str


class LSDSettings(Section):
    """Folders of images in the folder of the set.

    Attributes:
        train: Of the training images.
        validation: Of the validation images.
    """

    train: str
    validation: str


class CustomSettings(Section):
    """Your own images.

    Attributes:
        table: A file in the folder of the set, where the images are as well.
        classes: Expressions, in the order of the scores.
    """

    table: str
    classes: list[str] = Field(min_length=2)


SetSettings = rendered_plan.Settings | SAffWild2Settings | LSDSettings | CustomSettings
_SETTINGS: dict[SetName, type[SetSettings]] = {
    "rendered": rendered_plan.Settings,
    "s_aff_wild2": SAffWild2Settings,
    "lsd": LSDSettings,
    "custom": CustomSettings,
}


class ImageSet(NamedTuple):
    """A set as its lists say.

    Attributes:
        identity: Under which a prior or a CNN remembers whom of it they have seen.
        root: Folder of the images.
        classes: Expressions, in the order of the scores.
        listings: What became of the lines of each list, by the file's name.
        counts: Sentences about the lists' lines beside what is published.
        challenge: Images of a test list without labels, in its order, repeated ones too.
    """

    identity: str
    root: Path
    classes: tuple[str, ...]
    listings: dict[str, Listing]
    counts: list[str]
    challenge: list[str]


def settings_of(name: SetName, values: Any) -> SetSettings:
    """The section `sets.<name>` as its record."""
    return _SETTINGS[name].model_validate(values or {})


def read_set(name: SetName, settings: SetSettings, source: Path, out: Path) -> ImageSet:
    """Read the lists of a set; `rendered` is drawn into `out` first.

    Raises:
        ValueError: A list is no list of its kind, or is not there.
    """
    if isinstance(settings, rendered_plan.Settings):
        rendered.write_set(settings, out)
        lists = {
            rendered.TRAINING: "train",
            rendered.VALIDATION: "validation",
            rendered.TEST_TRUTH: "test",
        }
        return _annotated(f"rendered, seed {settings.seed}", out, lists, "")
    if isinstance(settings, SAffWild2Settings):
        lists = {rendered.TRAINING: "train", rendered.VALIDATION: "validation"}
        return _annotated(name, source, lists, settings.test_list)
    if isinstance(settings, LSDSettings):
        return _lsd(settings, source)
    listing = read_table(source / settings.table, ImageFolder(source), settings.classes)
    listings = {settings.table: listing}
    return ImageSet(name, source, tuple(settings.classes), listings, [], [])


def _annotated(identity: str, folder: Path, lists: dict[str, str], test_list: str) -> ImageSet:
    root = folder / rendered.IMAGES
    listings, counts = {}, []
    images = ImageFolder(root)
    for file, part in lists.items():
        if not (folder / file).is_file():
            raise ValueError(f"{folder / file} is not there; put the set's lists into {folder}")
        found = read_annotations(folder / file, images, part)
        listings[file] = found.listing
        if part in PUBLISHED and identity == "s_aff_wild2":
            counts += [f"{file}, {line}" for line in compare_counts(found.counts, part)]
    challenge = read_test_list(folder / test_list) if test_list else []
    return ImageSet(identity, root, EXPRESSIONS, _named_apart(listings), counts, challenge)


def _lsd(settings: LSDSettings, source: Path) -> ImageSet:
    listings = {}
    for part in ("train", "validation"):
        folder = getattr(settings, part)
        if not (source / folder).is_dir():
            raise ValueError(f"{source / folder} is not there; sets.lsd.{part} names it")
        found = lsd.read_folders(source / folder, lsd.EXPRESSIONS, part)
        listings[folder] = _below(folder, found)
    return ImageSet("lsd", source, lsd.EXPRESSIONS, _named_apart(listings), [], [])


def _below(folder: str, listing: Listing) -> Listing:
    """The listing of a folder, seen from the folder above it."""

    def move(image: LabelledImage) -> LabelledImage:
        path, group = f"{folder}/{image.path}", f"{folder}/{image.group}"
        return LabelledImage(image.id, path, group, image.part, image.labels, image.line)

    return listing._replace(images=[move(image) for image in listing.images])


def _named_apart(listings: dict[str, Listing]) -> dict[str, Listing]:
    """The listings under ids that are unique over all of them; an image in two lists is an error.

    Raises:
        ValueError: Two lists name the same image.
    """
    images = [image for listing in listings.values() for image in listing.images]
    paths = [image.path for image in images]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{' and '.join(listings)} both name {twice}; it belongs into one list")
    stems = [path.rpartition(".")[0] for path in paths]
    names = iter(unique_slugs(stems if len(set(stems)) == len(stems) else paths))

    def rename(image: LabelledImage) -> LabelledImage:
        return LabelledImage(
            next(names), image.path, image.group, image.part, image.labels, image.line
        )

    return {
        file: listing._replace(images=[rename(image) for image in listing.images])
        for file, listing in listings.items()
    }


def challenge_images(found: ImageSet) -> list[LabelledImage]:
    """The images of a test list that are there, each once; nothing is known of them."""
    folder = ImageFolder(found.root)
    paths = [path for path in dict.fromkeys(found.challenge) if not folder.check(path)]
    names = unique_slugs([f"challenge/{path}" for path in paths])
    return [
        LabelledImage(name, path, group_of(path), "", Labels())
        for name, path in zip(names, paths, strict=True)
    ]
