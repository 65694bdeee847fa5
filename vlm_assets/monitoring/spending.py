"""How much false alarm each look may cost, so that many looks together keep one promise.

Looking every hour at 1 % is 88 false alarms a year. A spending function (Lan & DeMets 1983, "Discrete sequential
boundaries for clinical trials") says how much of the total has been spent by each share of the looks; each look may
spend the increase. By the union bound the chance of any false alarm is then at most the total, whatever the looks have
in common: they do share one reference, so no weaker bound will do.
"""

from vlm_assets.errors import ConfigError


def alpha_of_look(look: int, total: float, looks: int, power: float = 1.0) -> float:
    """What look number `look` (from 1) may spend of `total`, the chance of any false alarm among `looks` of them.

    The power family total * share ** power (Kim & DeMets 1987): 1 spends evenly, so that drift is found as well in the
    twelfth month as in the first; above 1 less early, as O'Brien and Fleming's bounds do, below 1 more. After `looks`
    of them the next period begins with a budget of its own. Raises ConfigError for what is no look or no budget.
    """
    if look < 1 or looks < 1:
        raise ConfigError(f"This is look {look} of {looks}; both count from 1.")
    if not (0 < total < 1 and power > 0):
        raise ConfigError(f"total is {total} and power {power}; a total lies between 0 and 1, a power above 0.")
    place = (look - 1) % looks + 1
    return total * ((place / looks) ** power - ((place - 1) / looks) ** power)
