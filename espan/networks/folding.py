"""Folding: training form -> deploy form, with the branches of each convolution merged."""

from espan.networks.network import Network
from espan.networks.reparam import RepConv
from espan.system.devices import one_thread


@one_thread()
def fold(net: Network) -> Network:
    """Creates a network of plain convolutions equal to `net`, including the image border.

    Args:
        net: a network in training or deploy form; not modified.

    Returns:
        A network of the same class in deploy form, with the same device, dtype and train or eval
        mode. It is equal up to rounding: fold in float64 for differences below 1e-10.
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
