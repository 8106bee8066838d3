"""Published methods on top of DeepLabModule, each a page to copy and change."""

from deeplab_lit.methods.adaptsegnet import AdaptSegNet, Discriminator
from deeplab_lit.methods.advent import AdvEnt, MinEnt
from deeplab_lit.methods.dacs import DACS
from deeplab_lit.methods.distillation import Distillation
from deeplab_lit.methods.self_training import SelfTraining

__all__ = [
    "DACS",
    "AdaptSegNet",
    "AdvEnt",
    "Discriminator",
    "Distillation",
    "MinEnt",
    "SelfTraining",
]
