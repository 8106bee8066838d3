"""Images to logits: atrous backbones, heads, multi-scale inputs, weights. Needs torch alone."""
