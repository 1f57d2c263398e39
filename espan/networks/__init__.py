"""The networks, in training and deploy form, and the folding between them."""
