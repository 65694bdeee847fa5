"""What a check of the doctor says, and how findings become one table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a thing is: `ABSENT` is not used here and nothing to mend."""

    OK = "ok"
    ABSENT = "–"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found there, and what to do about it ("" if nothing)."""

    state: State
    subject: str
    found: str
    advice: str = ""


Check = Callable[[], Finding]


def ok(subject: str, found: str) -> Finding:
    """A thing that is as it should be."""
    return Finding(State.OK, subject, found)


def examine(subject: str, check: Check) -> Finding:
    """The check's finding. One that dies is itself a finding: the others are still worth having."""
    try:
        return check()
    except Exception as error:
        text = " ".join(str(error).split()) or "no message"
        return Finding(State.FAIL, subject, f"{type(error).__name__}: {text}", "Mend that, then ask again.")


def table(findings: Sequence[Finding]) -> str:
    """One line per finding, the advice below what it is about, and a last line that counts."""
    width = max(len(finding.subject) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.state:<4}  {finding.subject:<{width}}  {finding.found}")
        if finding.advice:
            lines.append(f"{'':<4}  {'':<{width}}  -> {finding.advice}")
    failed, warned = (sum(finding.state is state for finding in findings) for state in (State.FAIL, State.WARN))
    return "\n".join([*lines, f"{len(findings)} looked at, {failed} failed, {warned} to watch."])
