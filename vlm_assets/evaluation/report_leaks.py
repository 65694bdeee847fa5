"""The report's part on leaks: scores.json's figures in sentences and as a small table."""

from collections.abc import Mapping
from typing import Any

from vlm_assets.evaluation.display import CIDER


def leaks_shown(leaks: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a naive split would have leaked, in sentences, and in a table what that is worth to a copier."""
    if leaks is None:
        return None
    naive = leaks["naive_split"]
    tested, leaked = naive["test_rows"], naive["leaked_test_rows"]
    share = f" ({100 * leaked / tested:.0f} %)" if tested else ""
    text = [
        "Twins (the same or nearly the same picture) and rows of one group never part ways between training and test. "
        f"A naive split, which deals single rows of the source at random, would have tested on about {tested:,.0f} "
        f"rows and shown the model a twin of about {leaked:,.0f} of them{share} in training."
    ]
    if leaks["inflation"] is None:
        text.append(f"Of the {leaks['rows']:,} rows behind the test pictures none would have leaked: nothing to gain.")
        return {"text": text, "rows": []}
    text.append(
        "What that is worth, measured on copying, which needs no training: every row behind the test pictures is "
        "tested twice against its own captions, without its twins to copy from and with those that a random "
        f"{100 * leaks['train_share']:.0f} % of all rows would have put into training (mean of {leaks['draws']} draws)."
        " A model tuned on leaking data could gain more or less; none was."
    )
    return {"text": text, "rows": [_leaks_of_all(leaks), _leaks_of_leaked(leaks)]}


def _leaks_of_all(leaks: Mapping[str, Any]) -> dict[str, Any]:
    row = _leak_row("all rows of the test pictures", leaks["rows"], leaks["clean"], leaks["leaky"])
    return row | {"interval": CIDER.interval(leaks["inflation"], signed=True)}


def _leaks_of_leaked(leaks: Mapping[str, Any]) -> dict[str, Any]:
    found = leaks["clean_on_leaked"], leaks["leaky_on_leaked"]
    return _leak_row("only those with a twin in training", leaks["leaked_rows"], *found)


def _leak_row(label: str, n: float, clean: float, leaky: float) -> dict[str, Any]:
    values = {"clean": CIDER.text(clean), "leaky": CIDER.text(leaky), "gain": CIDER.text(leaky - clean, signed=True)}
    return {"label": label, "n": f"{n:,.0f}", **values, "interval": ""}
