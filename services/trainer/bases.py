"""Base models that this trainer has the weights of."""

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Protocol

from services.core.base_model import BaseModel
from services.core.errors import FailedPrecondition, InvalidRequest, NotFound
from services.core.types import Fingerprint
from services.runtime.model_files import files_of, fingerprint_of, found_model
from services.trainer.task import Base


class KnownModels(Protocol):
    """The store."""

    async def base_models(self) -> list[BaseModel]: ...
    async def base_model(self, name: str) -> BaseModel: ...


class Bases:
    def __init__(self, store: KnownModels, paths: Mapping[Fingerprint, Path]) -> None:
        self._store = store
        self._paths = paths

    @property
    def fingerprints(self) -> Set[Fingerprint]:
        return self._paths.keys()

    async def chosen(self, name: str) -> BaseModel:
        """What workers serve by that name, or the only one. Raises InvalidRequest, or
        FailedPrecondition if its weights are not here."""
        models = await self._store.base_models()
        meant = [model for model in models if not name or model.is_called(name)]
        here = [model for model in meant if model.fingerprint in self._paths]
        if name and not meant:
            raise InvalidRequest.of("base_model", f"{name!r} is not served here")
        if not here:
            raise FailedPrecondition("this trainer has not the weights of that base model")
        if len(here) > 1:
            names = ", ".join(model.name for model in here)
            raise InvalidRequest.of("base_model", f"name one of {names}")
        return here[0]

    async def base(self, name: str, fingerprint: Fingerprint) -> Base:
        """With all that training takes. Raises NotFound or FailedPrecondition."""
        card = await self._store.base_model(name)
        if card.fingerprint != fingerprint:
            raise FailedPrecondition(f"{name} stands for other weights now")
        if fingerprint not in self._paths:
            raise NotFound(f"this trainer has not the weights of {name}")
        return Base(
            name=card.name,
            path=self._paths[fingerprint],
            tokenizer_json=card.tokenizer_json.decode(),
            chat_template=card.chat_template,
            special_tokens=dict(card.special_tokens),
            end_tokens=card.end_tokens,
            context_tokens=card.context_tokens,
            fingerprint=card.fingerprint,
            layers=tuple((each.path, each.out_features, each.in_features) for each in card.modules),
        )


def by_fingerprint(paths: Iterable[Path]) -> dict[Fingerprint, Path]:
    """Reads them all. Raises FailedPrecondition."""
    return {fingerprint_of(files_of(found_model(path))): path for path in paths}


def module_names(model: BaseModel) -> tuple[str, ...]:
    """Short names of the linear layers that adapters may change."""
    return tuple(sorted({module.path.rsplit(".", 1)[-1] for module in model.modules}))
