"""A trained network at work: images and videos in, masks and overlays out."""
