"""BatchNorm folded into the convolutions before it, for passes in eval mode."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from headscope.models.classifier import tap

TOLERANCE = 1e-5  # of an output's largest value


@torch.inference_mode()
def folded(model: nn.Module, x: Tensor, *, outputs: list[str], of: str) -> nn.Module:
    """Return a copy of a model in eval mode whose BatchNorm is a part of its convolutions.

    In eval mode BatchNorm multiplies and adds by channel, as the weights of the convolution before
    it can do. The model itself stays as it is, bit for bit, and is returned where there is nothing
    to fold, or where folding changes, for the batch x (B, 3, H, W), what is read by more than 1e-5
    of its largest value: a convolution whose output goes elsewhere too, or weights that it computes
    from others. A convolution whose output is read keeps its BatchNorm: outputs and of are the
    paths of the modules whose outputs, and whose input, the pass reads.
    """
    model.eval()
    made: dict[int, tuple[str, object]] = {}  # by id; the outputs are held, so that ids stay unique
    pairs: list[tuple[str, str]] = []

    def made_by(path: str, output: object) -> None:
        made[id(output)] = (path, output)

    def read_by(path: str, read: Tensor) -> None:
        if id(read) in made:
            pairs.append((made[id(read)][0], path))

    handles = [
        module.register_forward_hook(lambda _, args, output, path=path: made_by(path, output))
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(lambda _, args, path=path: read_by(path, args[0]))
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        or (isinstance(module, nn.BatchNorm2d) and module.running_mean is not None)
    ]
    try:
        with tap(model, outputs, [of]) as caught:
            model(x)
            expected = {path: tensor.clone() for path, tensor in caught.items()}
            needed = {made[id(tensor)][0] for tensor in caught.values() if id(tensor) in made}
    finally:
        for handle in handles:
            handle.remove()
    pairs = [pair for pair in pairs if pair[0] not in needed]
    if not pairs:
        return model
    # modules are copied, their weights are shared: folding replaces those of convolutions
    shared = {id(part): part for part in (*model.parameters(), *model.buffers())}
    changed = copy.deepcopy(model, shared)
    for convolution, normalisation in pairs:
        _fold(changed, convolution, normalisation)
    with tap(changed, outputs, [of]) as caught:
        changed(x)
    # a copy of a model that was altered by hand may still run the modules of the model itself
    alike = all(path in caught and _alike(caught[path], expected[path]) for path in expected)
    return changed if alike else model


def _fold(model: nn.Module, convolution: str, normalisation: str) -> None:
    """Fold one BatchNorm into one convolution; timm's BatchNorm leaves its activation."""
    conv, norm = model.get_submodule(convolution), model.get_submodule(normalisation)
    if not isinstance(norm, nn.BatchNorm2d):  # folded already: the comparison tells whether it may
        return
    assert isinstance(conv, nn.Conv2d)
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    conv.to(memory_format=torch.channels_last)
    rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    model.set_submodule(normalisation, nn.Sequential(*rest).eval())


def _alike(output: Tensor, expected: Tensor) -> bool:
    limit = TOLERANCE * expected.abs().max()
    return output.shape == expected.shape and bool((output - expected).abs().max() <= limit)
