"""Masks in color, overlays, charts."""
