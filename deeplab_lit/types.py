"""Types and values that every part shares. Every part of the package may import this."""

VOID = 255  # in a mask: a pixel that is neither trained on nor scored

Color = tuple[int, int, int]  # R, G, B in 0…255
Classes = dict[str, Color]  # name → color, in the order of the class indices
