"""The operating system: devices, memory, atomic files, paths, shutdown, optional packages."""
