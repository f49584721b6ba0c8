"""How Keras starts the weights of a dense layer, which the authors' notebook leaves as it is."""

from math import prod, sqrt

from torch import nn


class DenseOfHeads(nn.Linear):
    """A dense layer to or from all heads, whose kernel has three axes in Keras.

    Args:
        kernel_shape: In Keras: (inputs, heads, head width), or (heads, head width, outputs).
        in_features: Inputs.
        out_features: Outputs.
    """

    def __init__(
        self, kernel_shape: tuple[int, int, int], in_features: int, out_features: int
    ) -> None:
        self.kernel_shape = kernel_shape
        super().__init__(in_features, out_features)


def init_as_keras(module: nn.Module) -> None:
    """Keras defaults of a dense layer, for `nn.Module.apply`: Glorot uniform weights, zero bias."""
    if isinstance(module, nn.Linear):
        shape: tuple[int, ...] = (module.in_features, module.out_features)
        if isinstance(module, DenseOfHeads):
            shape = module.kernel_shape
        bound = glorot_bound(shape)
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def glorot_bound(kernel_shape: tuple[int, ...]) -> float:
    """Largest weight of Keras' GlorotUniform for a kernel of two axes or more.

    Keras takes the last two axes for inputs and outputs and all before them for a receptive field,
    as in a convolution. For the kernel (d, heads, width) of an attention this starts its queries,
    keys and values far smaller than Glorot and Bengio would: 0.0048 in place of 0.054 for (512, 3,
    512).

    Source: Keras, `compute_fans`.
    """
    field = prod(kernel_shape[:-2])
    return sqrt(6 / (field * (kernel_shape[-2] + kernel_shape[-1])))
