"""A code location with the real gate's checks around an evaluation that takes no time; its config says how it ends."""

import dagster as dg

from vlm_assets.release.gate import RULES, RuleResult, Verdict, check_results, check_specs


class Ending(dg.Config):
    """`broken`: the rule that the candidate breaks; `error`: what the evaluation dies of."""

    broken: str = ""
    error: str = ""


@dg.asset(check_specs=check_specs())
def eval_report(config: Ending):
    """A report whose verdict is the config's."""
    if config.error:
        raise dg.Failure(config.error)
    rules = [RuleResult(rule, rule != config.broken, f"{rule} by 0.4 ± 0.1") for rule in RULES]
    return dg.MaterializeResult(check_results=check_results(Verdict(tuple(rules))))


@dg.asset(deps=[eval_report])
def released_model():
    """As the real one tells who became champion."""
    return dg.MaterializeResult(metadata={"bundle_version": "b42", "why": "CIDEr above copy"})


preset = {"ops": {"eval_report": {"config": {"broken": "not_worse_than_champion"}}}}
defs = dg.Definitions(
    assets=[eval_report, released_model],
    jobs=[
        dg.define_asset_job("retrain", selection="*"),
        dg.define_asset_job("with_preset", selection="*", config=preset),
    ],
    executor=dg.in_process_executor,
)
