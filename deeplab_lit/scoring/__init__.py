"""Scores of a trained network: metrics, per-image scores, trimap, Cityscapes, galleries."""
