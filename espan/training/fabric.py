"""Sets up lightning-fabric from the settings: devices, processes and precision."""

import os

from espan.errors import InputError
from espan.system.devices import pick_device
from espan.system.extras import extra
from espan.training.config import PRECISIONS, TrainConfig


def launch(config: TrainConfig):
    """Starts the processes; returns the Fabric and its precision plugin (with the scaler of fp16).

    The number of processes comes from the environment of torchrun, or else from `devices` and
    `nodes`.
    """
    lightning = extra("lightning_fabric", "training", "train")
    plugins = lightning.plugins
    device = pick_device(config.device)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", config.devices))
    world = int(os.environ.get("WORLD_SIZE", here * config.nodes))
    if config.batch % world:
        raise InputError(f"batch: {config.batch} is not a multiple of {world} processes")
    name = PRECISIONS[config.precision]
    if name.endswith("mixed"):
        precision = plugins.MixedPrecision(name, device.type)
    else:
        precision = plugins.Precision()
    devices = [device.index] if device.index is not None and world == 1 else here
    fabric = lightning.Fabric(
        accelerator="cuda" if device.type == "cuda" else device.type,
        devices=devices,
        num_nodes=max(world // here, 1),
        strategy="ddp" if world > 1 else "auto",
        plugins=[precision],
    )
    fabric.launch()
    return fabric, precision
