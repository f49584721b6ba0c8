"""DAN, a CNN with four attention heads, of which AffectNet weights are public.

Parameters carry the names of the public checkpoints.

Shape letters: B pictures, P side in pixels, H x W positions of the trunk, C classes.

Source: Distract Your Attention (arXiv 2109.07270), section 3, and its released code and weights.
"""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

NUM_HEADS = 4
_CHANNELS, _INNER, _SQUEEZED = 512, 256, 32
# In the order of the checkpoint for AffectNet's eight, in the project's vocabulary.
AFFECTNET_8 = ("neutral", "happy", "sad", "surprised", "fear", "disgust", "angry", "contempt")


class DAN(nn.Module):
    """Pictures (B, 3, P, P), normalised as ImageNet's, -> logits (B, C).

    The logits are normed over a batch while it trains, so that it says of a picture what it should
    in evaluation mode alone.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # Without the pooling and the classifier.
        self.features = nn.Sequential(*list(resnet18().children())[:-2])
        for i in range(NUM_HEADS):
            self.add_module(f"cat_head{i}", AttentionHead())
        self.fc = nn.Linear(_CHANNELS, num_classes)
        self.bn = nn.BatchNorm1d(num_classes)

    def forward(self, pictures: Tensor) -> Tensor:
        maps = self.features(pictures)
        heads = [self.get_submodule(f"cat_head{i}")(maps) for i in range(NUM_HEADS)]
        # Each channel is divided among the heads.
        shares = torch.stack(heads, dim=1).log_softmax(dim=1)
        logits: Tensor = self.bn(self.fc(shares.sum(dim=1)))
        return logits


class AttentionHead(nn.Module):
    """Where to look, then which channels: (B, 512, H, W) -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.sa = SpatialAttention()
        self.ca = ChannelAttention()

    def forward(self, maps: Tensor) -> Tensor:
        weighted: Tensor = self.ca(self.sa(maps))
        return weighted


class SpatialAttention(nn.Module):
    """Weigh the positions by convolutions of three shapes: (B, 512, H, W) -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1x1 = _convolution(_CHANNELS, _INNER, (1, 1))
        self.conv_3x3 = _convolution(_INNER, _CHANNELS, (3, 3))
        self.conv_1x3 = _convolution(_INNER, _CHANNELS, (1, 3))
        self.conv_3x1 = _convolution(_INNER, _CHANNELS, (3, 1))

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.conv1x1(maps)
        seen = self.conv_3x3(inner) + self.conv_1x3(inner) + self.conv_3x1(inner)
        weights: Tensor = seen.relu().sum(dim=1, keepdim=True)
        return maps * weights


class ChannelAttention(nn.Module):
    """Weigh the channels by their means: (B, 512, H, W) -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(_CHANNELS, _SQUEEZED),
            nn.BatchNorm1d(_SQUEEZED),
            nn.ReLU(),
            nn.Linear(_SQUEEZED, _CHANNELS),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        means = maps.mean(dim=(2, 3))
        weights: Tensor = self.attention(means)
        return means * weights


def _convolution(in_channels: int, out_channels: int, kernel: tuple[int, int]) -> nn.Sequential:
    padding = kernel[0] // 2, kernel[1] // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding),
        nn.BatchNorm2d(out_channels),
    )
