"""Training of networks: settings, data, losses, stages and the loop. Command: `espan train`."""
