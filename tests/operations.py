"""What torch is asked for."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Heard(TorchDispatchMode):
    """Operations, by name, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().removeprefix("aten::").partition(".")[0])
        return func(*args, **(kwargs or {}))
