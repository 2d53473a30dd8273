"""SGD with momentum and weight decay, and the paper's step schedule."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    learning_rate is the initial one; it is multiplied by drop_factor after every drop_every
    epochs (the paper's 'drops by 10% after every 10 epochs' read as 0.9; Table 2). The
    classifier trains at head_learning_rate times that.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 32
    momentum: float = 0.9
    weight_decay: float = 1e-4
    drop_every: int = 10
    drop_factor: float = 0.9
    head_learning_rate: float = 1.0

    def learning_rate_of(self, epoch: int) -> float:
        """Return the learning rate of `epoch`, counted from 0."""
        return self.learning_rate * self.drop_factor ** (epoch // self.drop_every)


def sgd(model: nn.Module, head: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return an optimiser over what may train: the backbone, then the classifier."""
    of_head = {id(parameter) for parameter in head.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    backbone = [parameter for parameter in trained if id(parameter) not in of_head]
    groups = [{"params": backbone, "factor": 1.0}] if backbone else []
    groups.append({"params": list(head.parameters()), "factor": recipe.head_learning_rate})
    return torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["factor"]
