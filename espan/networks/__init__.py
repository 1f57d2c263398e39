"""The networks, in training and deploy form, and the folding between them."""

# How many times larger a network makes an image.
SCALES = (2, 3, 4)
