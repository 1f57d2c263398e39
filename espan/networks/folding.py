"""Folding: train form -> deploy form, every re-parameterised convolution merged into one."""

from espan.networks.network import Network
from espan.networks.reparam import RepConv
from espan.system.devices import one_thread


@one_thread()
def fold(net: Network) -> Network:
    """A new network of plain convolutions equal to `net`, the image border included.

    Args:
        net: a network in train or deploy form; it is left as it is.

    Returns:
        A network of the same class in deploy form, on the same device, in the same dtype and
        train or eval mode. It is equal up to rounding: fold in float64 for differences under
        1e-10.
    """
    state = dict(net.state_dict())
    for name, layer in net.named_modules():
        if isinstance(layer, RepConv):
            for key in layer.state_dict():
                del state[f"{name}.{key}"]
            weight, bias = layer.merged()
            state[f"{name}.weight"], state[f"{name}.bias"] = weight.detach(), bias.detach()
    folded = type(net)(**{**net.config, "rep": None})
    some = next(net.parameters())
    folded.to(some.device, some.dtype)
    folded.load_state_dict(state)
    return folded.train(net.training)
