"""Training: settings, data, losses, stages and the loop. `espan train` is its command."""
