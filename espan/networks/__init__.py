"""The networks, in training and deploy form, and the folding between them."""

# Upscaling factors of networks.
SCALES = (2, 3, 4)
