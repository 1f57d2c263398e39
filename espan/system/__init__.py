"""The machine: devices, memory, files written whole, signals, optional packages."""
