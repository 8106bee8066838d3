"""What a trained network is worth: metrics, per-image scores, trimap, Cityscapes, galleries."""
