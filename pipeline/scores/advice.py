"""What to change where a training hardly got off the ground."""

from collections.abc import Sequence

# A training that learns leaves chance in its first epochs.
_LARGEST_SHARE = 1 / 3
# Above chance, in UAR, what a few validation clips more or less make.
_MARGIN = 0.02


def advice(validation_uars: Sequence[float], num_classes: int) -> str:
    """One line of advice; empty where the validation was above chance in most of the epochs.

    Args:
        validation_uars: Of every epoch, in order.
        num_classes: That occur: chance is one in so many.
    """
    chance = 1 / num_classes
    at_chance = sum(uar <= chance + _MARGIN for uar in validation_uars)
    if at_chance <= _LARGEST_SHARE * len(validation_uars):
        return ""
    stayed = (
        f"in {at_chance} of {len(validation_uars)} epochs the validation was at chance (UAR "
        f"{chance:.0%})"
    )
    if validation_uars[-1] > chance + _MARGIN:
        return f"{stayed}, and left it late: more engine.epochs make sure that it does"
    return (
        f"{stayed}. What helps, in this order: frames.crop: face; encoder.weights of a pre-trained "
        "encoder; more engine.epochs; half or double the optimizer.learning_rate"
    )
