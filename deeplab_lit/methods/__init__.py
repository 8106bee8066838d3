"""Published methods on top of DeepLabModule, each a page to copy and change."""

from deeplab_lit.methods.dacs import DACS
from deeplab_lit.methods.self_training import SelfTraining

__all__ = ["DACS", "SelfTraining"]
