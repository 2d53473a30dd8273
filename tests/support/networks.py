"""A network small enough for any test, and a pickle that would run code."""

import os

from headscope.models.network import build_network

TINY = "timm/test_resnet"


def tiny(regime: str = "finetune", weights: str = "random", seed: int = 0):
    return build_network(TINY, regime, weights, classes=2, size=32, seed=seed)


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (self.target,))
