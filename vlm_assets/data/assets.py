"""The data stage: raw_dataset -> validated_splits -> tokenized_shards."""

from collections.abc import Mapping

import dagster as dg

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.data.config import RawDatasetConfig, ShardsConfig, SplitConfig
from vlm_assets.data.metadata import raw_metadata, shard_metadata, split_metadata
from vlm_assets.data.raw import import_source
from vlm_assets.data.shards import contract_of, sample_texts, write_shards
from vlm_assets.data.sources.mixed import MixedSource, SnapshotSource
from vlm_assets.data.splits import write_splits
from vlm_assets.data.versioning import RegistryConfig, build_versioned, restore
from vlm_assets.resources import OPTIONAL, StoreResource, TrackerResource, read_ref
from vlm_assets.store import Built, Draft
from vlm_assets.training.base_on_demand import base_of_this_run

GROUP = "data"
CORRECTIONS = dg.AssetKey("feedback_captions")
OWNERS = ["team:vlm"]
RAW_CODE_VERSION = "5"
SPLITS_CODE_VERSION = "5"
SHARDS_CODE_VERSION = "3"


@dg.asset(
    group_name=GROUP,
    kinds={"python", "parquet"},
    owners=OWNERS,
    code_version=RAW_CODE_VERSION,
    description="A normalised snapshot of the source: every picture once, all its captions; the unusable with reasons",
    deps=[CORRECTIONS],  # read below, if there are any: a source needs none
)
def raw_dataset(context: dg.AssetExecutionContext, config: RawDatasetConfig, store: StoreResource):
    """The source's fingerprint is part of the version: an unchanged source is not imported again.

    Accepted corrections are mixed in behind it; without any, versions and content are those of the source alone.
    """
    opened = store.open()
    if isinstance(config.source, RegistryConfig):
        built, tracked = restore(opened, config.source, "raw_dataset", RAW_CODE_VERSION, context.log.info)
        return _raw_result(built, tracked)
    source = config.source.open()
    # A title that is set is in the config; one that is taken from the folder's name is no part of the content.
    inputs = {"source": source.fingerprint(context.log.info)}
    corrections = read_ref(opened.backend, CORRECTIONS, context.run_id) if config.corrections == "mix" else None
    parents = (corrections,) if corrections and corrections.counts.get("accepted") else ()
    recipe = Recipe("raw_dataset", RAW_CODE_VERSION, config.content(), parents, inputs)
    for parent in parents:
        context.log.info(f"mixing in {parent.counts['accepted']:,} corrected captions")
        source = MixedSource(source, SnapshotSource(opened.directory(parent), parent.version))

    def write(draft: Draft) -> None:
        draft.counts |= import_source(
            source,
            draft.path,
            max_bad_fraction=config.max_bad_fraction,
            log=context.log.info,
            scratch=opened.scratch(recipe),
        )

    return _raw_result(*build_versioned(opened, recipe, write, context.log.info))


def _raw_result(built: Built, tracked: Mapping[str, str]) -> dg.MaterializeResult[ArtifactRef]:
    metadata = {**raw_metadata(built.ref, built.path), **tracked, "reused": built.reused}
    return dg.MaterializeResult(value=built.ref, data_version=dg.DataVersion(built.ref.version), metadata=metadata)


@dg.asset(
    group_name=GROUP,
    kinds={"python", "parquet"},
    owners=OWNERS,
    code_version=SPLITS_CODE_VERSION,
    description="Clean, leak-proof train, val and test splits; everything dropped is counted by reason",
)
def validated_splits(
    context: dg.AssetExecutionContext, config: SplitConfig, store: StoreResource, raw_dataset: ArtifactRef
):
    """Near duplicates and groups stay together, held-out values stay out of training."""
    opened = store.open()
    recipe = Recipe("validated_splits", SPLITS_CODE_VERSION, config.model_dump(), parents=(raw_dataset,))

    def write(draft: Draft) -> None:
        raw = opened.directory(raw_dataset)
        draft.counts |= write_splits(raw, draft.path, config.settings(), context.log.info)

    built = opened.build(recipe, write)
    metadata = {**split_metadata(built.ref, built.path), "reused": built.reused}
    return dg.MaterializeResult(value=built.ref, data_version=dg.DataVersion(built.ref.version), metadata=metadata)


@dg.asset(
    group_name=GROUP,
    kinds={"python", "parquet", "huggingface"},
    owners=OWNERS,
    code_version=SHARDS_CODE_VERSION,
    description="Model-ready shards: pictures at the model's size, captions as token ids; for Hugging Face datasets",
    ins={"base_model": dg.AssetIn(metadata={OPTIONAL: True})},
)
def tokenized_shards(
    context: dg.AssetExecutionContext,
    config: ShardsConfig,
    store: StoreResource,
    tracker: TrackerResource,
    validated_splits: ArtifactRef,
    raw_dataset: ArtifactRef,
    base_model: ArtifactRef | None,
):
    """Pictures and captions go through the base model's own preprocessing contract and tokenizer."""
    opened = store.open()
    base = base_of_this_run(context, base_model, store, tracker)
    bundle = opened.directory(base) / "bundle"
    parents = (validated_splits, raw_dataset, base)
    inputs = {"contract_sha256": contract_of(bundle).sha256}
    recipe = Recipe("tokenized_shards", SHARDS_CODE_VERSION, config.recipe(), parents, inputs)

    def write(draft: Draft) -> None:
        splits, raw = opened.directory(validated_splits), opened.directory(raw_dataset)
        settings, scratch = config.settings(), opened.scratch(recipe)
        draft.counts |= write_shards(splits, raw, bundle, draft.path, context.log.info, settings, scratch)

    built, tracked = build_versioned(opened, recipe, write, context.log.info)
    texts = sample_texts(built.path, bundle)
    metadata = {**shard_metadata(built.ref, built.path, texts), **tracked, "reused": built.reused}
    return dg.MaterializeResult(value=built.ref, data_version=dg.DataVersion(built.ref.version), metadata=metadata)
