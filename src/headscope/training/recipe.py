"""The recipe of a training: its optimiser and loss, its schedule, what is kept."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin

import torch
from pydantic import BeforeValidator, Field
from torch import nn

from headscope.errors import InputError
from headscope.models.regimes import Regime
from headscope.schedule import rate_of


def _refuse_truth(value: Any) -> Any:
    """Refuse true and false, which would pass for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


Whole = Annotated[int, BeforeValidator(_refuse_truth)]
Number = Annotated[float, BeforeValidator(_refuse_truth), Field(allow_inf_nan=False)]
Positive = Annotated[Whole, Field(ge=1, le=1_000_000)]
Rate = Annotated[Number, Field(gt=0, le=1e4)]  # far below what overflows in float32
Share = Annotated[Number, Field(ge=0, lt=1)]
BETA2 = 0.999  # of AdamW, whose first beta is the momentum


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Settings of users are held to the ranges of the types; a recipe made in code is held to the
    choices alone.

    Parameters
    ----------
    learning_rate
        The initial rate. By the schedule "step" it is multiplied by drop_factor after every
        drop_every epochs (the paper's 'drops by 10% after every 10 epochs' read as 0.9; Table 2),
        by "cosine" it falls to nearly 0 along half a cosine, epoch by epoch (Loshchilov and Hutter
        2017). The classifier trains at head_learning_rate times that.
    optimizer
        "sgd" with momentum, or "adamw" (Loshchilov and Hutter 2019; β₁ is the momentum, β₂ 0.999),
        whose weight decay acts on the weights alone.
    class_weights, label_smoothing
        The weight of a slice in the loss: the same for all ("none"), or "balanced", by class n / (K
        · n_k) of the training slices; and the share of the target that all classes have alike
        (Szegedy et al. 2016). Both count in the validation loss too.
    sampling
        An epoch has every training slice once ("shuffle"), or as many drawn with replacement, each
        class equally often ("weighted").
    select
        Which weights are kept: those of the "final" epoch, or of the "best", the one of the lowest
        validation loss.
    patience
        Training ends after so many epochs without a lower validation loss (None: never). What is
        kept is what select says: the weights at that end, or those of the best epoch.
    precision
        "auto" is bfloat16 on CUDA and float32 elsewhere; weights are float32 always.
    augment_flip, augment_rotate_deg, augment_jitter
        Slices are flipped left to right, turned by up to so many degrees, and made brighter or
        darker by up to that share.
    probe_epochs
        The length of the first part of lp-ft (None: epochs).

    Raises
    ------
    InputError
        A choice that does not exist.
    """

    epochs: Positive = 20
    learning_rate: Rate = 0.001
    batch_size: Positive = 32
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Share = 0.9
    weight_decay: Annotated[Number, Field(ge=0, le=1e4)] = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    drop_every: Positive = 10
    drop_factor: Annotated[Number, Field(gt=0, le=1)] = 0.9
    head_learning_rate: Rate = 1.0
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: Share = 0.0
    sampling: Literal["shuffle", "weighted"] = "shuffle"
    patience: Positive | None = None
    select: Literal["final", "best"] = "final"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    augment_flip: bool = False
    augment_rotate_deg: Annotated[Number, Field(ge=0, le=180)] = 0.0
    augment_jitter: Share = 0.0
    probe_epochs: Positive | None = None

    def __post_init__(self) -> None:
        """Refuse a choice that does not exist."""
        for field in fields(self):
            value, valid = getattr(self, field.name), get_args(field.type)
            if get_origin(field.type) is Literal and value not in valid:
                raise InputError(
                    f"The setting {field.name!r} is {value!r}; valid: {', '.join(valid)}."
                )

    def learning_rate_of(self, epoch: int) -> float:
        """Return the learning rate of `epoch`, counted from 0."""
        names = ("learning_rate", "schedule", "epochs", "drop_every", "drop_factor")
        return rate_of(epoch, **{name: getattr(self, name) for name in names})

    def applied(self, regime: Regime) -> "Recipe":
        """Return what of the recipe acts in a regime, as the record should say it."""
        if not regime.trains_backbone:
            return replace(self.for_head(), precision=self.precision, compile=self.compile)
        probe_epochs = (self.probe_epochs or self.epochs) if regime.probe_first else None
        return replace(self, probe_epochs=probe_epochs)

    def for_head(self, epochs: int | None = None) -> "Recipe":
        """Return the recipe as it applies to a classifier that trains alone, on stored features.

        There is no slice to augment, no network to compile, and nothing to gain from less than
        float32.
        """
        return replace(
            self,
            epochs=epochs or self.epochs,
            precision="float32",
            compile=False,
            augment_flip=False,
            augment_rotate_deg=0.0,
            augment_jitter=0.0,
            probe_epochs=None,
        )


def make_optimizer(model: nn.Module, head: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return an optimiser over what may train: the backbone, then the classifier."""
    of_head = {id(parameter) for parameter in head.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    backbone = [parameter for parameter in trained if id(parameter) not in of_head]
    groups = [{"params": backbone, "factor": 1.0}] if backbone else []
    groups.append({"params": list(head.parameters()), "factor": recipe.head_learning_rate})
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, rate, (recipe.momentum, BETA2), weight_decay=decay)
    return torch.optim.SGD(groups, rate, recipe.momentum, weight_decay=decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["factor"]
