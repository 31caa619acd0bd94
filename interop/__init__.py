"""interop: the bridge between PyTorch and JAX pytrees; speaks pytrees and numpyro distributions.

It imports nothing from funcvi. torch is loaded when one of the names below is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interop.errors import ConversionError, UncoveredOperation

if TYPE_CHECKING:
    from interop.arrays import to_array, to_tensor
    from interop.certificates import certificate, certify
    from interop.checkpoints import CheckpointError, load, open_checkpoint, save
    from interop.from_torch.modules import Net, to_jax
    from interop.from_torch.report import Report, report
    from interop.from_torch.static import Static
    from interop.from_torch.structures import Container, to_pytree
    from interop.loading import load_into
    from interop.sampling_modules import to_sampling_module
    from interop.trees import flatten_names, from_state_dict, to_state_dict, unflatten_names

_HOMES = {
    "to_jax": "from_torch.modules",
    "Net": "from_torch.modules",
    "to_pytree": "from_torch.structures",
    "Container": "from_torch.structures",
    "Static": "from_torch.static",
    "report": "from_torch.report",
    "Report": "from_torch.report",
    "load_into": "loading",
    "to_sampling_module": "sampling_modules",
    "to_array": "arrays",
    "to_tensor": "arrays",
    "from_state_dict": "trees",
    "to_state_dict": "trees",
    "flatten_names": "trees",
    "unflatten_names": "trees",
    "certificate": "certificates",
    "certify": "certificates",
    "load": "checkpoints",
    "save": "checkpoints",
    "open_checkpoint": "checkpoints",
    "CheckpointError": "checkpoints",
}

__all__ = [
    "CheckpointError",
    "Container",
    "ConversionError",
    "Net",
    "Report",
    "Static",
    "UncoveredOperation",
    "certificate",
    "certify",
    "flatten_names",
    "from_state_dict",
    "load",
    "load_into",
    "open_checkpoint",
    "report",
    "save",
    "to_array",
    "to_jax",
    "to_pytree",
    "to_sampling_module",
    "to_state_dict",
    "to_tensor",
    "unflatten_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'interop' has no attribute {name!r}")
    try:
        return getattr(import_module(f"interop.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "safetensors"):
            raise ModuleNotFoundError(
                f"interop.{name} needs {error.name}: pip install funcvi[torch]", name=error.name
            ) from error
        raise


def __dir__() -> list[str]:
    return sorted(__all__)
