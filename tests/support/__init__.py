"""What tests share: makers of images and networks, stand-ins, contracts."""
