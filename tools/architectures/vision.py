"""timm and torchvision: the smallest model of each file, on the smallest image it takes."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from comparison import Case, NotBuilt, first_line, without_dropout

_SMALL = [
    "test_",
    "atto",
    "femto",
    "zepto",
    "pico",
    "nano",
    "xxxs",
    "xxs",
    "xxtiny",
    "xtiny",
    "tiny",
    "_xs",
    "s0",
    "small",
    "b0",
    "t0",
    "mini",
    "_s",
]
"""How small variants are called, the smallest first."""

_SMALLER = {
    "deepseek_vit_412m": {"depth": 2},
    "mobilenetv5_300m": {"channel_multiplier": 0.25},
}
"""What makes the smallest of a file small enough to hold several times."""

_SIZES = (64, 96, 128, 160, 224, 256, 384)


def timm_models() -> dict[str, Callable[[], Case]]:
    """By file and variant."""
    from timm.models import _registry

    chosen = {}
    for file, names in _registry._module_to_models.items():
        name = min(names, key=lambda name: (_rank(name), *_numbers(name), name))
        chosen[f"{file}: {name}"] = partial(_timm, name)
    return chosen


def _rank(name: str) -> int:
    return next((i for i, word in enumerate(_SMALL) if word in name), len(_SMALL))


def _numbers(name: str) -> tuple[int, int]:
    found = [int(n) for n in re.findall(r"\d+", name)]
    return (min(found) if found else 0, len(name))


def _timm(name: str) -> Case:
    import timm

    reasons = []
    for size in _SIZES:
        for options in ({"img_size": size}, {}):
            try:
                module = timm.create_model(name, **options, **_SMALLER.get(name, {})).eval()
                return _fitting(module, (_floats(2, 3, size, size),))
            except Exception as error:
                reasons.append(f"{type(error).__name__}: {first_line(error)}")
    raise NotBuilt(reasons[-1])


def _fitting(module: torch.nn.Module, inputs: tuple[Any, ...]) -> Case:
    without_dropout(module)
    with torch.no_grad():
        module(*inputs)
    return Case(module, inputs)


def _floats(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def torchvision_models() -> dict[str, Callable[[], Case]]:
    """By family and variant; detectors also without the choice of boxes."""
    from torchvision import models

    families: dict[str, list[str]] = {}
    for name in models.list_models():
        file = models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
        if not file.startswith("quantization"):
            newer = " v2" if re.search(r"_v2_[a-z]|fpn_v2", name) and "shuffle" not in file else ""
            families.setdefault(file + newer, []).append(name)
    chosen: dict[str, Callable[[], Case]] = {}
    for family, names in families.items():
        name = min(names, key=_parameters)
        chosen[f"{family}: {name}"] = partial(_torchvision, family, name)
        if family.startswith("detection"):
            chosen[f"{family}: {name}, backbone and heads"] = partial(_parts, name)
    return chosen


def _parameters(name: str) -> int:
    from torchvision import models

    return min(w.meta["num_params"] for w in models.get_model_weights(name))


def _torchvision_model(name: str) -> torch.nn.Module:
    from torchvision import models

    options: dict[str, Any] = {"weights": None}
    if re.search("rcnn|retina|fcos|ssd|deeplab|fcn|lraspp", name):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False}
    module: torch.nn.Module = models.get_model(name, **options).eval()
    return module


def _torchvision(family: str, name: str) -> Case:
    module = _torchvision_model(name)
    reasons = []
    for size in _SIZES:
        image = _floats(2, 3, size, size)
        inputs: tuple[Any, ...] = (image,)
        if family.startswith("detection"):
            inputs = ([image[0].sigmoid()],)
        elif family.startswith("video"):
            inputs = (_floats(1, 3, 16, size, size),)
        elif family.startswith("optical"):
            inputs = (image[:1], image[1:])
        try:
            return _fitting(module, inputs)
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {first_line(error)}")
    raise NotBuilt(reasons[-1])


class _Parts(torch.nn.Module):
    """A detector's features, and what its heads say of them."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head
        self.roi = getattr(detector, "roi_heads", None)

    def forward(self, x: torch.Tensor, regions: torch.Tensor) -> Any:
        features = self.backbone(x)
        features = [features] if isinstance(features, torch.Tensor) else list(features.values())
        out = [self.head(features)]
        roi: Any = self.roi
        if roi is not None:
            out.append(roi.box_predictor(roi.box_head(regions)))
            for name in ("mask", "keypoint"):
                if getattr(roi, f"{name}_head", None) is not None:
                    head, predictor = (
                        getattr(roi, f"{name}_head"),
                        getattr(roi, f"{name}_predictor"),
                    )
                    out.append(predictor(head(regions)))
        return out


def _parts(name: str) -> Case:
    detector = _torchvision_model(name)
    size = 300 if "ssd" in name else 64
    return _fitting(_Parts(detector), (_floats(1, 3, size, size), _floats(2, 256, 7, 7)))
