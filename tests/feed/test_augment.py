import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small import NO_AUGMENTATION
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP, AugmentOp, rand_augment_choices
from torch import Tensor

from pipeline.feed import augment, geometry
from pipeline.feed.augment import augment_clip, global_generators_seeded_by
from pipeline.feed.mix import MixSettings, mix_batch
from pipeline.store.batch import Batch, Target
from pipeline.store.stored_frames import face_targets

SIDE = 96
GREY = 128
# Column and row of left eye, right eye, nose, left and right mouth corner: centres of pixels.
LANDMARKS = torch.tensor([(32, 32), (60, 34), (45, 46), (36, 62), (56, 60)]) + 0.5
# Each landmark has its own colour: the channel that its dot raises or lowers. The box lowers blue.
SIGNALS = [(0, 1), (0, -1), (1, 1), (1, -1), (2, 1)]
BOX_SIGNAL = (2, -1)
PHOTOMETRIC, GEOMETRIC = augment._PHOTOMETRIC, list(geometry.GEOMETRIC)
Clip = tuple[Tensor, Tensor, Tensor, Tensor]


def painted_clip(num_frames: int = 3) -> Clip:
    """A face that wanders over grey frames: its box a rectangle, its landmarks coloured dots."""
    places = torch.arange(SIDE) + 0.5
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    frames = torch.full((num_frames, 3, SIDE, SIDE), GREY, dtype=torch.uint8)
    boxes, points = torch.empty(num_frames, 4), torch.empty(num_frames, 5, 2)
    for t, frame in enumerate(frames):
        shift = torch.tensor([4.0 * t, -3.0 * t])
        boxes[t] = torch.cat([torch.tensor([20, 16]) + shift, torch.tensor([50, 60])])
        points[t] = LANDMARKS + shift
        left, top, width, height = boxes[t].int().tolist()
        frame[2, top : top + height, left : left + width] = 0
        for (column, row), (channel, sign) in zip(points[t].tolist(), SIGNALS, strict=True):
            dot = (columns - column) ** 2 + (rows - row) ** 2 <= 3**2
            frame[channel, dot] = 255 if sign > 0 else 0
    return frames, boxes / SIDE, points / SIDE, torch.tensor([True] * (num_frames - 1) + [False])


def signal(frame: Tensor, channel: int, sign: int) -> Tensor:
    return ((frame[channel].float() - GREY) * sign).clamp(min=0)


def centre_of_mass(weights: Tensor) -> Tensor:
    places = torch.arange(SIDE) + 0.5
    return torch.stack([weights.sum(0) @ places, weights.sum(1) @ places]) / weights.sum()


def augmented(
    clip: Clip,
    seed: int,
    operations: int = 0,
    magnitude: float = 7,
    erase: float = 0,
    crop: float = 1,
) -> Clip:
    settings = NO_AUGMENTATION.model_copy(
        update={
            "crop_area": crop,
            "crop_aspect": 4 / 3,
            "rand_augment_ops": operations,
            "rand_augment_magnitude": magnitude,
            "erase_probability": erase,
        }
    )
    return augment_clip(*clip, settings, np.random.default_rng(seed))


def only(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    """Draw from these operations alone."""
    names = set(names)
    monkeypatch.setattr(augment, "_PHOTOMETRIC", [n for n in PHOTOMETRIC if n in names])
    geometric = {n: rows for n, rows in geometry.GEOMETRIC.items() if n in names}
    monkeypatch.setattr(augment, "GEOMETRIC", geometric)


def timm_pictures(frames: Tensor, name: str, magnitude: float) -> list[Tensor]:
    """The frames after timm's operation, once for either sign that it may draw."""
    operation: Any = NAME_TO_OP[name]
    to_arguments: Any = LEVEL_TO_ARG[name]
    results = []
    for seed in (0, 1):  # random() is above and below one half
        random.seed(seed)
        arguments = to_arguments(magnitude, {}) if to_arguments else ()
        pictures = [
            operation(
                Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()),
                *arguments,
                resample=Image.Resampling.BILINEAR,
                fillcolor=(GREY,) * 3,
            )
            for frame in frames
        ]
        stacked = np.stack([np.asarray(picture) for picture in pictures])
        results.append(torch.from_numpy(stacked).permute(0, 3, 1, 2))
    return results


def smooth_frames() -> Tensor:
    coarse = torch.randint(0, 256, (4, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse.float(), size=SIDE, mode="bicubic").clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("crop", [1, 0.4])
def test_landmarks_follow_the_pixels(crop: float, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, GEOMETRIC)
    clip = painted_clip()
    compared = 0
    for seed in range(60):
        frames, _, points, _ = augmented(clip, seed, operations=1 + seed % 3, crop=crop)
        for frame, places in zip(frames, points * SIDE, strict=True):
            for place, (channel, sign) in zip(places, SIGNALS, strict=True):
                if 6 < place.min() and place.max() < SIDE - 6:
                    found = centre_of_mass(signal(frame, channel, sign))
                    assert torch.dist(found, place) < 0.5
                    compared += 1
    assert compared > 400


PLACED = NO_AUGMENTATION.model_copy(update={"shift": 0.1, "scale": 0.2, "rotation": 20.0})


def test_landmarks_follow_a_face_that_is_shifted_scaled_and_turned() -> None:
    clip = painted_clip()
    movements = []
    for seed in range(40):
        frames, _, points, _ = augment_clip(*clip, PLACED, np.random.default_rng(seed))
        movements.append(points[0, 2] - clip[2][0, 2])
        for frame, places in zip(frames, points * SIDE, strict=True):
            for place, (channel, sign) in zip(places, SIGNALS, strict=True):
                if 6 < place.min() and place.max() < SIDE - 6:
                    assert torch.dist(centre_of_mass(signal(frame, channel, sign)), place) < 0.6
    # Uniform from -0.1 to 0.1 has a deviation of 0.058; the nose is near the middle of the frame.
    assert torch.stack(movements).std(dim=0).tolist() == pytest.approx([0.06, 0.06], abs=0.015)


def test_scale_and_rotation_are_what_the_settings_say() -> None:
    clip = painted_clip()
    eyes = torch.stack(
        [
            points[0, 1] - points[0, 0]
            for seed in range(300)
            for points in [augment_clip(*clip, PLACED, np.random.default_rng(seed))[2]]
        ]
    )
    before = clip[2][0, 1] - clip[2][0, 0]
    growths = (eyes.norm(dim=1) / before.norm()).log()
    turns = torch.rad2deg(torch.atan2(eyes[:, 1], eyes[:, 0]) - torch.atan2(before[1], before[0]))
    for values, largest in ((growths, 0.2), (turns, 20)):
        assert values.abs().max() <= largest + 1e-4
        assert values.std() == pytest.approx(largest / 3**0.5, rel=0.1)
        assert values.mean() == pytest.approx(0, abs=largest / 10)


def test_colours_change_and_labels_stay() -> None:
    clip = painted_clip()
    settings = NO_AUGMENTATION.model_copy(update={"colour": 0.3})
    means = []
    for seed in range(40):
        changed = augment_clip(*clip, settings, np.random.default_rng(seed))
        assert all(torch.equal(a, b) for a, b in zip(changed[1:], clip[1:], strict=True))
        means.append(float(changed[0].float().mean() / clip[0].float().mean()))
    # Brightness alone moves the mean: by a factor from 0.7 to 1.3.
    assert 0.65 < min(means) < 0.8
    assert 1.2 < max(means) < 1.35


def test_the_box_bounds_the_moved_pixels_within_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, GEOMETRIC)
    clip = painted_clip()
    num_whole = num_clipped = 0
    for seed in range(60):
        frames, boxes, _, mask = augmented(clip, seed, operations=1 + seed % 3)
        for frame, (x, y, width, height) in zip(frames[mask], SIDE * boxes[mask], strict=True):
            painted = signal(frame, *BOX_SIGNAL) > 4
            columns, rows = painted.any(0).nonzero(), painted.any(1).nonzero()
            found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            box = torch.stack([x, y, x + width, y + height])
            assert box.min() >= 0
            assert box.max() <= SIDE + 1e-4
            outwards = (box - found) * torch.tensor([-1, -1, 1, 1])
            assert outwards.min() > -1
            if box.min() > 0 and box.max() < SIDE - 1e-4:
                # A corner outside of the frame may hold the box open further than what is seen.
                assert outwards.max() < 1.5
                num_whole += 1
            else:
                num_clipped += 1
    assert num_whole > 30
    assert num_clipped > 10


def test_a_frame_is_masked_when_the_centre_of_its_box_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, ["TranslateXRel"])
    frames, boxes, points, mask = painted_clip(num_frames=3)
    # Centres at 0.4, 0.5 and 0.6 of the width; the third frame's labels are unknown.
    boxes[:, 0] = torch.tensor([0.4, 0.5, 0.6]) - boxes[:, 2] / 2
    seen = {}
    for seed in range(8):
        moved = augmented((frames, boxes, points, mask), seed, operations=1, magnitude=10)
        shift = round(float(moved[2][0, 0, 0] - points[0, 0, 0]), 4)
        seen[shift] = moved[3].tolist()
    # By 0.45 to the left the centre at 0.4 leaves, by 0.45 to the right none does.
    assert seen == {-0.45: [False, True, False], 0.45: [True, True, False]}


@pytest.mark.parametrize("magnitude", [3, 10])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations_are_timms(
    name: str, magnitude: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, [name])
    clip = (smooth_frames(), *painted_clip(num_frames=4)[1:])
    expected = timm_pictures(clip[0], name, magnitude)
    signs = set()
    for seed in range(8):
        frames = augmented(clip, seed, operations=1, magnitude=magnitude)[0]
        # Pillow rounds otherwise, and does not blend with the fill along the border.
        equal = [((frames.int() - e.int()).abs() <= 2).float().mean().item() for e in expected]
        assert max(equal) > 0.97
        assert min(equal) < 0.8
        signs.add(equal.index(max(equal)))
    assert signs == {0, 1}


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_photometric_operations_are_timms_and_leave_labels_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, [name])
    clip = (smooth_frames(), *painted_clip(num_frames=4)[1:])
    expected = timm_pictures(clip[0], name, 7)
    for seed in range(4):
        frames, *labels = augmented(clip, seed, operations=1)
        # Equal in all frames at once: no frame drew a sign of its own.
        assert any(torch.equal(frames, e) for e in expected)
        assert not torch.equal(frames, clip[0])
        for label, before in zip(labels, clip[1:], strict=True):
            assert torch.equal(label, before)


@pytest.mark.parametrize(("magnitude", "deviation"), [(7.0, 0.5), (9.0, 3.0)])
def test_chances_and_magnitudes_are_drawn_as_timm_draws_them(
    magnitude: float, deviation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without Posterize, at whose largest magnitude timm fails.
    names = [name for name in PHOTOMETRIC if name != "PosterizeIncreasing"]
    only(monkeypatch, names)
    settings = NO_AUGMENTATION.model_copy(
        update={
            "rand_augment_ops": 4,
            "rand_augment_probability": 0.5,
            "rand_augment_magnitude": magnitude,
            "rand_augment_deviation": deviation,
        }
    )
    clip = (smooth_frames()[:1], *painted_clip(num_frames=1)[1:])
    num_unchanged = 0
    for seed in range(60):
        frames = augment_clip(*clip, settings, np.random.default_rng(seed))[0]
        generator = np.random.default_rng(seed)
        with global_generators_seeded_by(generator):
            picture = Image.fromarray(clip[0][0].permute(1, 2, 0).contiguous().numpy())
            for name in generator.choice(names, 4).tolist():
                operation: Any = AugmentOp(  # type: ignore[no-untyped-call]
                    name, prob=0.5, magnitude=magnitude, hparams={"magnitude_std": deviation}
                )
                picture = operation(picture)
        assert torch.equal(frames[0], torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        num_unchanged += torch.equal(frames, clip[0])
    # No operation of four in a sixteenth of the clips: 4 of 60.
    assert 1 <= num_unchanged <= 10


def test_operations_are_timms_increasing_ones_without_invert_and_solarize_add() -> None:
    names = set(rand_augment_choices("", increasing=True))
    assert {*PHOTOMETRIC, *GEOMETRIC} == names - {"Invert", "SolarizeAdd"}


def test_posterize_keeps_one_bit_where_timm_and_pillow_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, ["PosterizeIncreasing"])
    clip = (smooth_frames(), *painted_clip(num_frames=4)[1:])
    with pytest.raises(ValueError, match="bits"):
        timm_pictures(clip[0], "PosterizeIncreasing", 10)
    frames = augmented(clip, 0, operations=1, magnitude=10)[0]
    assert torch.equal(frames, clip[0] & 128)


def test_two_operations_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    # Posterize keeps 4 - 2 bits, solarize inverts from 256 - 179 on: the order can be told.
    only(monkeypatch, ["PosterizeIncreasing", "SolarizeIncreasing"])
    clip = (smooth_frames(), *painted_clip(num_frames=4)[1:])

    def after(*names: str) -> Tensor:
        frames = clip[0]
        for name in names:
            frames = timm_pictures(frames, name, 7)[0]
        return frames

    pairs = [(a, b) for a in PHOTOMETRIC[2:4] for b in PHOTOMETRIC[2:4]]
    expected = {pair: after(*pair) for pair in pairs}
    results = [augmented(clip, seed, operations=2)[0] for seed in range(20)]
    found = {p for r in results for p in pairs if torch.equal(r, expected[p])}
    assert all(any(torch.equal(r, e) for e in expected.values()) for r in results)
    assert found == set(pairs)


def test_two_geometric_operations_are_timms_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, ["Rotate", "ShearX"])
    clip = (smooth_frames(), *painted_clip(num_frames=4)[1:])
    expected = [
        twice
        for first in ("Rotate", "ShearX")
        for once in timm_pictures(clip[0], first, 10)
        for second in ("Rotate", "ShearX")
        for twice in timm_pictures(once, second, 10)
    ]
    # The middle only: what has left the frame after the first operation is lost to timm's second.
    middle = (..., slice(SIDE // 3, 2 * SIDE // 3), slice(SIDE // 3, 2 * SIDE // 3))
    found = set()
    for seed in range(60):
        frames = augmented(clip, seed, operations=2, magnitude=10)[0]
        errors = [(frames.float() - e.float())[middle].abs().mean().item() for e in expected]
        assert min(errors) < 1.5
        found.add(errors.index(min(errors)))
    assert len(found) >= 12  # of 16, some of which look alike: a turn and its inverse


def test_every_operation_is_drawn_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*PHOTOMETRIC, *GEOMETRIC]
    counts = dict.fromkeys(names, 0)

    def counted(name: str) -> Any:
        def to_arguments(magnitude: float, _: Any) -> tuple[float, ...]:
            counts[name] += 1
            return (0.0,)

        return to_arguments

    monkeypatch.setattr(augment, "LEVEL_TO_ARG", {name: counted(name) for name in names})
    monkeypatch.setattr(augment, "_recolour", lambda frames, operations: frames)
    clip = painted_clip(num_frames=1)
    for seed in range(500):
        augmented(clip, seed, operations=4)
    assert sum(counts.values()) == 2000
    # 154 each; the deviation of a binomial count is 12.
    assert all(abs(count - 2000 / 13) < 48 for count in counts.values())


def test_without_operations_and_erasing_a_clip_stays_as_it_is() -> None:
    clip = painted_clip()
    for result, before in zip(augmented(clip, 0), clip, strict=True):
        assert torch.equal(result, before)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in [*PHOTOMETRIC, *GEOMETRIC]
        if n not in ("AutoContrast", "Equalize", "PosterizeIncreasing")
    ],
)
def test_magnitude_zero_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, [name])
    clip = painted_clip()
    for result, before in zip(
        augmented(clip, 0, operations=2, magnitude=0), painted_clip(), strict=True
    ):
        assert torch.equal(result, before)


def test_the_result_is_a_function_of_the_generator_alone() -> None:
    clip = painted_clip()
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        results.append(augmented(clip, 5, operations=6, erase=1))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(augmented(clip, 6, operations=6, erase=1)[0], results[0][0])
    for before, pristine in zip(clip, painted_clip(), strict=True):
        assert torch.equal(before, pristine)


def test_the_global_generators_are_left_as_they_were() -> None:
    def seed_all() -> None:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)

    def draws() -> tuple[float, ...]:
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    seed_all()
    expected = draws()
    seed_all()
    for seed in range(5):
        augmented(painted_clip(), seed, operations=4, erase=1)
        mixed(one_colour_batch(4), seed, mixup=0, cutmix=1)
        mixed(one_colour_batch(4), seed, mixup=1, cutmix=0)
    assert draws() == expected


def test_erasing_hides_one_rectangle_of_all_frames_and_no_label() -> None:
    clip = painted_clip()
    frames = torch.full_like(clip[0], 7)
    shares = []
    for seed in range(40):
        erased, *labels = augmented((frames, *clip[1:]), seed, erase=1)
        hidden = (erased != 7).any(dim=1)
        rows, columns = hidden[0].any(1).nonzero(), hidden[0].any(0).nonzero()
        rectangle = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        rectangle[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert torch.equal(hidden, rectangle.expand_as(hidden))
        shares.append(float(rectangle.float().mean()))
        assert all(torch.equal(a, b) for a, b in zip(labels, clip[1:], strict=True))
        assert not torch.equal(erased[0], erased[1])  # the noise is drawn anew for every frame
    assert 0.015 < min(shares)
    assert max(shares) < 0.34
    assert 0.12 < np.mean(shares) < 0.23  # uniform between 0.02 and 0.33


def test_noise_has_the_mean_colour_and_a_share_of_clips_is_erased() -> None:
    clip = painted_clip(num_frames=1)
    frames = torch.zeros_like(clip[0])
    results = [augmented((frames, *clip[1:]), seed, erase=0.25)[0] for seed in range(400)]
    erased = [result for result in results if result.any()]
    assert 70 < len(erased) < 130
    colours = torch.stack([r[0, :, (r[0] > 0).any(0)].float().mean(1) for r in erased]).mean(0)
    expected = 255 * torch.tensor([0.485, 0.456, 0.406])
    torch.testing.assert_close(colours, expected, atol=3, rtol=0)


def one_colour_batch(num_clips: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clips of one value each, 0, 10, 20, ..., and of one class each."""
    values = 10 * torch.arange(num_clips)
    frames = values[:, None, None, None, None].expand(-1, 2, 3, 32, 32).float()
    return frames, torch.arange(num_clips), torch.tensor([[True, False]] * num_clips)


def as_batch(frames: Tensor, labels: Tensor, mask: Tensor) -> Batch:
    """Clips with boxes and points of noise."""
    num_clips, num_frames = mask.shape
    noise = torch.rand(num_clips, num_frames, 14, generator=torch.Generator().manual_seed(0))
    boxes, points = noise[..., :4], noise[..., 4:].reshape(num_clips, num_frames, 5, 2)
    names = [f"clip{i}" for i in range(num_clips)]
    targets = face_targets(boxes, points, mask, labels)
    return Batch(names, [f"subject of {name}" for name in names], frames, targets)


def mixed_batch(
    batch: Batch,
    seed: int,
    mixup: float,
    cutmix: float,
    probability: float = 1,
    smoothing: float = 0,
    num_classes: int = 5,
) -> Batch:
    return mix_batch(
        batch,
        MixSettings(mixup_alpha=mixup, cutmix_alpha=cutmix, probability=probability),
        num_classes=num_classes,
        label_smoothing=smoothing,
        generator=np.random.default_rng(seed),
    )


def mixed(
    clips: tuple[Tensor, Tensor, Tensor],
    seed: int,
    mixup: float,
    cutmix: float,
    probability: float = 1,
    smoothing: float = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, soft labels, and in which frames boxes and points are known."""
    result = mixed_batch(as_batch(*clips), seed, mixup, cutmix, probability, smoothing)
    boxes, points = result.targets["boxes"], result.targets["points"]
    assert torch.equal(boxes.known, points.known)
    return result.inputs, result.targets["expression"].values, boxes.known


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_mixup_blends_frames_and_labels_in_the_same_proportion(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(4, 2, 3, 8, 8, generator=generator)
    labels = torch.tensor([2, 0, 2, 4])
    mask = torch.ones(4, 2, dtype=torch.bool)
    one_hot = F.one_hot(labels, 5) * (1 - smoothing) + smoothing / 5
    for seed in range(20):
        blend, soft, known = mixed((frames, labels, mask), seed, 0.8, 0, smoothing=smoothing)
        # Clip 0 of class 2 meets clip 3 of class 4.
        share = (soft[0, 2] - smoothing / 5) / (1 - smoothing)
        torch.testing.assert_close(blend, share * frames + (1 - share) * frames.flip(0))
        torch.testing.assert_close(soft, share * one_hot + (1 - share) * one_hot.flip(0))
        assert not known.any()


def test_a_blend_of_uint8_is_rounded() -> None:
    frames, labels, mask = one_colour_batch(4)
    exact, soft, _ = mixed((frames, labels, mask), 3, 1, 0)
    blend, same_soft, _ = mixed((frames.to(torch.uint8), labels, mask), 3, 1, 0)
    assert blend.dtype == torch.uint8
    assert torch.equal(blend, exact.round())
    assert torch.equal(soft, same_soft)


def test_cutmix_shows_as_much_of_the_other_clip_as_the_label_says() -> None:
    frames, labels, mask = one_colour_batch(4)
    for seed in range(20):
        cut, soft, known = mixed((frames.to(torch.uint8), labels, mask), seed, 0, 1)
        foreign = cut != frames
        assert torch.equal(cut, torch.where(foreign, frames.flip(0), frames))
        assert torch.equal(foreign, foreign[:1, :1, :1].expand_as(foreign))
        share = foreign.float().mean()
        rows, columns = foreign[0, 0, 0].any(1).sum(), foreign[0, 0, 0].any(0).sum()
        assert rows * columns == foreign[0, 0, 0].sum()
        expected = (1 - share) * F.one_hot(labels, 5) + share * F.one_hot(labels.flip(0), 5)
        torch.testing.assert_close(soft, expected)
        assert torch.equal(known, mask & (share == 0))


def test_a_batch_that_is_not_mixed_keeps_everything_and_smooths_labels_as_torch_does() -> None:
    frames, labels, mask = one_colour_batch(3)
    same, soft, known = mixed((frames, labels, mask), 0, 0.8, 1, probability=0, smoothing=0.1)
    assert torch.equal(same, frames)
    assert torch.equal(known, mask)
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        F.cross_entropy(logits, soft), F.cross_entropy(logits, labels, label_smoothing=0.1)
    )
    assert soft[1].tolist() == pytest.approx([0.02, 0.92, 0.02, 0.02, 0.02])


@pytest.mark.parametrize(("mixup", "cutmix"), [(1, 0), (0, 1)])
def test_the_middle_clip_of_an_odd_batch_stays_as_it_is(mixup: float, cutmix: float) -> None:
    for num_clips in (1, 3):
        frames, labels, mask = one_colour_batch(num_clips)
        result, soft, known = mixed((frames, labels, mask), 1, mixup, cutmix)
        middle = num_clips // 2
        assert torch.equal(result[middle], frames[middle])
        torch.testing.assert_close(soft[middle], F.one_hot(labels[middle], 5).float())
        assert torch.equal(known[middle], mask[middle])
        if num_clips == 3:
            assert not torch.equal(result[0], frames[0])
            assert known.tolist() == [[False, False], [True, False], [False, False]]


def test_mixing_has_the_distribution_asked_for() -> None:
    frames, labels, mask = one_colour_batch(2)
    shares, cuts, num_batches = [], 0, 800
    for seed in range(num_batches):
        result, soft, _ = mixed((frames, labels, mask), seed, 0.8, 1, probability=0.5)
        if torch.equal(result, frames):
            continue
        # Cutmix leaves every pixel with the value of one clip or the other.
        if ((result == 0) | (result == 10)).all():
            cuts += 1
        else:
            shares.append(float(soft[0, 0]))
    # A quarter each, give or take three deviations; Beta(a, a) has the variance 1 / (8 a + 4).
    assert abs(len(shares) - 200) < 40
    assert abs(cuts - 200) < 45
    assert np.mean(shares) == pytest.approx(0.5, abs=0.07)
    assert np.var(shares) == pytest.approx(1 / (8 * 0.8 + 4), abs=0.02)


def test_mixing_is_a_function_of_the_generator_and_leaves_its_input_alone() -> None:
    batch = tuple(tensor.clone() for tensor in one_colour_batch(4))
    frames, labels, mask = batch
    for mixup, cutmix in [(1, 0), (0, 1)]:
        results = []
        for seed in (1, 2):
            np.random.seed(seed)  # noqa: NPY002
            results.append(mixed((frames, labels, mask), 7, mixup, cutmix))
        for first, second in zip(*results, strict=True):
            assert torch.equal(first, second)
        assert not torch.equal(mixed((frames, labels, mask), 8, mixup, cutmix)[0], results[0][0])
    for before, pristine in zip(batch, one_colour_batch(4), strict=True):
        assert torch.equal(before, pristine)


@pytest.mark.parametrize(("mixup", "cutmix"), [(1, 0), (0, 1)])
def test_mixing_changes_no_name_no_place_and_not_whether_a_label_is_known(
    mixup: float, cutmix: float
) -> None:
    batch = as_batch(*one_colour_batch(4))
    known = torch.tensor([True, False, True, True])
    batch = batch.with_target("expression", Target(torch.arange(4), known))
    result = mixed_batch(batch, 7, mixup, cutmix)
    assert not torch.equal(result.inputs, batch.inputs)
    assert (result.ids, result.groups) == (batch.ids, batch.groups)
    assert list(result.targets) == list(batch.targets)
    for name in ("boxes", "points"):
        assert torch.equal(result.targets[name].values, batch.targets[name].values)
    assert torch.equal(result.targets["expression"].known, known)
