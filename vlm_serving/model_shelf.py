"""The models of one replica: one that answers if none is named, always loaded; others by name, loaded when asked."""

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from vlm_serving.bundle import Bundle, open_bundle
from vlm_serving.bundle_source import local_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.config import ServingConfig
from vlm_serving.errors import BundleError, UnknownModelError
from vlm_serving.exchange import EngineState, ModelCard
from vlm_serving.model_slot import ModelSlot

OpenModel = Callable[[str], Awaitable[ModelSlot]]
KeepOpen = Callable[
    [OpenModel, int], OpenModel
]  # a function that opens models, how many to keep -> one that keeps them


class ModelShelf:
    """Each model sits in a slot of its own, in which another bundle can take its place while it answers.

    `keep` bounds how many named models are in memory: `serve.multiplexed` on Ray Serve, which also sends requests to
    the replicas that have their model; `keep_recent` elsewhere.
    """

    def __init__(
        self, config: ServingConfig, load: Callable[[str, str], Captioner], keep: KeepOpen | None = None
    ) -> None:
        self._default = config.model_name
        self._load = load
        self.slot = ModelSlot(load)
        self._named: dict[str, Bundle] = {}
        self._open: weakref.WeakValueDictionary[str, ModelSlot] = weakref.WeakValueDictionary()

        self._opening: dict[str, asyncio.Task[ModelSlot]] = {}

        async def open_named(name: str) -> ModelSlot:
            return await self._opened_once(name)

        self._kept = (keep or keep_recent)(open_named, config.max_named_models)

    def put(self, bundle: str, version: str = "", named: Mapping[str, str] | None = None) -> str:
        """Take these bundles, each a directory or an address that `local_bundle` knows; blocking. None keeps the named.

        The default one is loaded at once, and so are those named ones that are in memory. Raises BundleError if one
        cannot be used; then the models before go on answering.
        """
        try:
            directory = str(local_bundle(bundle, version))
            opened = self._named if named is None else {name: _opened(name, source) for name, source in named.items()}
        except BundleError as error:
            self.slot.refuse(error, version or bundle)
            raise
        loaded = self.slot.put(directory, version)
        try:
            for name, slot in list(self._open.items()):
                if name in opened:
                    slot.put(str(opened[name].path), opened[name].version)
        except BundleError as error:
            self.slot.refuse(error, version or bundle)
            raise
        self._named = opened
        return loaded

    async def captioner(self, name: str) -> Captioner:
        """The model called `name`, loaded if need be. Raises NotReadyError, UnknownModelError, BundleError."""
        if name != self._default:
            self.state().card(name)
            return (await self._kept(name)).current()
        return self.slot.current()

    def card_of(self, name: str, captioner: Captioner) -> ModelCard:
        """What is to be known of a model that is loaded."""
        return ModelCard(name, captioner.version, captioner.bundle.contract, captioner.options)

    def state(self) -> EngineState:
        """All models, loaded or not."""
        cards = {
            name: ModelCard(name, bundle.version, bundle.contract, bundle.generation)
            for name, bundle in self._named.items()
        }
        if self.slot.captioner is not None:
            cards[self._default] = self.card_of(self._default, self.slot.captioner)
        state = self.slot.state
        return EngineState(self._default, cards, state.loading, state.error, state.refused)

    async def _opened_once(self, name: str) -> ModelSlot:
        """Loading outlives the request that asked for it: the next one finds it done, however short its deadline."""
        task = self._opening.get(name)
        if task is None or task.cancelled():
            task = self._opening[name] = asyncio.create_task(asyncio.to_thread(self._open_named, name))
        try:
            return await asyncio.shield(task)
        finally:
            if task.done():
                self._opening.pop(name, None)

    def _open_named(self, name: str) -> ModelSlot:
        bundle = self._named.get(name)
        if bundle is None:
            raise UnknownModelError(f"The model {name!r} has just been taken away.")
        slot = ModelSlot(self._load)
        slot.put(str(bundle.path), bundle.version)
        self._open[name] = slot
        return slot


def _opened(name: str, source: str) -> Bundle:
    try:
        return open_bundle(local_bundle(source), verify=False)  # the weights are verified when they are loaded
    except BundleError as error:
        raise BundleError(f"models.{name}: {error}") from error


def keep_recent(open_model: OpenModel, limit: int) -> OpenModel:
    """A function that opens a model once and keeps the `limit` models that were asked for last."""
    kept: OrderedDict[str, ModelSlot] = OrderedDict()
    opening = asyncio.Lock()

    async def opened(name: str) -> ModelSlot:
        async with opening:
            if name not in kept:
                while len(kept) >= limit:
                    kept.popitem(last=False)
                kept[name] = await open_model(name)
            kept.move_to_end(name)
            return kept[name]

    return opened
