"""The demo's story of a run, on a small graph of its own."""

import dagster as dg
import pytest

from vlm_assets.cli.chain import ChainError, Narrator, asset_names, run_chain


@dg.asset
def first(context: dg.AssetExecutionContext):
    context.log.info("halfway")
    context.log.debug("detail")
    context.log.warning("odd picture")
    return dg.MaterializeResult(value=1, data_version=dg.DataVersion("v1"))


@dg.asset
def second(first: int):
    return first + 1


@dg.asset
def broken(first: int):
    raise ValueError("no pictures in /data: put some there")


@dg.asset_check(asset=first)
def never_passes():
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


def definitions(*assets) -> dg.Definitions:
    job = dg.define_asset_job("captioner", "*", executor_def=dg.in_process_executor)
    return dg.Definitions(assets=assets, asset_checks=[never_passes], jobs=[job])


def run(defs: dg.Definitions, before: set[tuple[str, str]] = frozenset()) -> tuple[list[str], Narrator]:
    lines: list[str] = []
    narrator = Narrator(lines.append, asset_names(defs), before)
    with dg.instance_for_test() as instance:
        run_chain(defs, instance, narrator)
    return lines, narrator


def test_each_asset_is_announced_and_only_people_s_lines_are_shown():
    lines, narrator = run(definitions(first, second))
    assert [line for line in lines if line.startswith("[")] == ["[1/2] first", "[2/2] second"]
    assert "      halfway" in lines
    assert "      warning: odd picture" in lines
    assert "      warn: check never_passes did not pass" in lines
    assert not any("detail" in line or "STEP" in line or "RUN" in line for line in lines)
    assert narrator.made == ["first", "second"]


def test_a_version_that_was_there_before_counts_as_reused():
    lines, narrator = run(definitions(first, second), before={("first", "v1")})
    assert narrator.reused == ["first"]
    assert any(line.startswith("      unchanged, reused (") for line in lines)


def test_a_failure_gives_the_asset_and_its_own_message():
    with pytest.raises(ChainError, match=r"^broken failed: no pictures in /data: put some there$"):
        run(definitions(first, broken))
