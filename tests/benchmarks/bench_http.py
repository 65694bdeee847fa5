"""Captions over HTTP: this project's server beside others that serve the stock model.

Rivals: Ray Serve, LitServe, BentoML and FastAPI, each as its own documentation writes it (tests/benchmarks/rivals). All
serve the same random weights with the same number of model threads and get the same uploads: JPEGs of 200 KB, none
twice. One server lives at a time, in turn, and so for every round. Each is measured with 1 and with `--clients`
clients, then rates are bisected for the highest at which p95 stays within `--p95-ms`; from the second round on also at
one rate that all could bear in the first. The load generator shares the machine, and its own CPU share is told.

    python -m tests.benchmarks.bench_http [--model mini|base] [--dtype fp32|bf16] [--rounds 2] [--seconds 6]
        [--only ours,FastAPI] [--json FILE] [--plot FILE]
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_train import device_name
from tests.benchmarks.figures import Figure, Report, apart
from tests.benchmarks.rivals.contestants import Endpoint, Start, contestants
from tests.benchmarks.rivals.settings import RivalSettings
from tests.load.bundles import random_bundle
from tests.load.generator import Load, Send, Tried, best_rate, closed_load, highest_rate, open_load
from tests.load.http_client import Connections, wait_until_answers
from tests.load.pictures import jpegs
from tests.load.server import cpu_seconds, end_cleanly_on_sigterm

# base: few requests a second, so that windows are long and p95 is nearly the worst request
DEFAULTS: dict[str, dict[str, Any]] = {
    "mini": {"threads": 1, "rounds": 2, "seconds": 6.0, "clients": 16, "p95_ms": 250.0, "steps": 4},
    "base": {"threads": 2, "rounds": 1, "seconds": 20.0, "clients": 8, "p95_ms": 6000.0, "steps": 3},
}
START_S, REQUEST_S, TOKENS, ENGINE_PICTURES = 120.0, 120.0, 20, 10
WARM_UP_SHARE = 0.3
EQUAL_SHARE = 0.8  # of what the slowest could bear: the rate at which all are compared
RATIO_GOAL, OVERHEAD_GOAL_MS = 2.0, 5.0


@dataclass
class Turn:
    """One server in one round."""

    alone: Load
    many: Load
    tried: list[Tried]
    cores: float  # CPU seconds per second of all the server's processes, with many clients
    equal: Load | None = None

    @property
    def bound_rate(self) -> float:
        """Highest rate within the bound on p95."""
        return best_rate(self.tried)


def main() -> None:
    options = parse()
    end_cleanly_on_sigterm()
    print(f"{options.model}, {options.dtype}, {options.threads} model threads, {TOKENS} tokens, JPEGs of 200 KB, "
          f"{date.today()}, on {device_name()}\n")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-http-") as scratch:
        place = Path(scratch)
        bundle = random_bundle(place / "bundle", options.model, TOKENS)
        settings = RivalSettings(str(bundle), 0, options.threads, options.dtype, TOKENS)
        engine = apart(engine_ms, str(bundle), options.dtype, options.threads, options.seconds)
        print(
            f"the engine alone, bytes to caption: p50 {engine['total']:.1f} ms, of it decoding {engine['decode']:.1f}\n"
        )
        turns = asyncio.run(all_rounds(options, settings, place))
    report(options, turns, engine)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(DEFAULTS), default="mini")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, help="threads of the model, for each server")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="length of one measurement")
    parser.add_argument("--clients", type=int)
    parser.add_argument("--p95-ms", type=float, help="the common bound")
    parser.add_argument("--steps", type=int, help="bisections of the rate")
    parser.add_argument("--only", default="", help="names of servers, by commas")
    parser.add_argument("--environments", type=Path, default=Path(".venv-rivals"), help="of LitServe and BentoML")
    parser.add_argument("--json", type=Path, default=Path("bench-http.json"))
    parser.add_argument("--plot", type=Path, help="picture of p95 over rate")
    options = parser.parse_args()
    for name, value in DEFAULTS[options.model].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


async def all_rounds(options: argparse.Namespace, settings: RivalSettings, place: Path) -> dict[str, list[Turn]]:
    """Every server once a round, another one first in each."""
    pictures = jpegs()
    servers = contestants(options.environments, [name for name in options.only.split(",") if name])
    turns: dict[str, list[Turn]] = {name: [] for name in servers}
    for number in range(options.rounds):
        equal = EQUAL_SHARE * min(one[0].many.requests_per_s for one in turns.values()) if number else 0.0
        names = [*servers][number % len(servers) :] + [*servers][: number % len(servers)]
        for name in names:
            folder = place / f"{name}-{number}"
            turns[name].append(await one_turn(name, servers[name], options, settings, folder, pictures, equal))
    return turns


async def one_turn(
    name: str,
    start: Start,
    options: argparse.Namespace,
    settings: RivalSettings,
    folder: Path,
    pictures: Iterator[bytes],
    equal: float,
) -> Turn:
    """Start a server, measure it, end it."""
    started_s = time.perf_counter()
    with start(settings, folder) as endpoint:
        try:
            await asyncio.to_thread(
                wait_until_answers, endpoint.url, endpoint.path, endpoint.field, next(pictures), START_S
            )
        except TimeoutError as error:
            raise SystemExit(f"{name}: {error}\n{endpoint.output.read_text(errors='replace')[-3000:]}") from error
        print(f"{name} (up in {time.perf_counter() - started_s:.0f} s)", flush=True)
        async with Connections(endpoint.url, REQUEST_S) as connections:
            turn = await measured(options, sender(connections, endpoint, pictures), endpoint, equal)
        print(f"  at p95 <= {options.p95_ms:g} ms: {turn.bound_rate:.2f} req/s; {turn.cores:.2f} cores", flush=True)
    return turn


async def measured(options: argparse.Namespace, send: Send, endpoint: Endpoint, equal: float) -> Turn:
    """All measurements of a server that is up."""
    seconds, clients = options.seconds, options.clients

    async def at_rate(rate: float) -> Load:
        return shown(f"{rate:.2f} req/s offered", await open_load(send, rate, seconds))

    await closed_load(send, clients, WARM_UP_SHARE * seconds)
    alone = shown("1 client", await closed_load(send, 1, seconds))
    before_s, began_s = cpu_seconds(endpoint.pid), time.perf_counter()
    many = shown(f"{clients} clients", await closed_load(send, clients, seconds))
    cores = (cpu_seconds(endpoint.pid) - before_s) / (time.perf_counter() - began_s)
    ceiling = 1.1 * many.requests_per_s  # clients that wait for answers may leave gaps
    tried = await highest_rate(at_rate, ceiling, options.p95_ms, options.steps)
    return Turn(alone, many, tried, cores, await at_rate(equal) if equal else None)


def sender(connections: Connections, endpoint: Endpoint, pictures: Iterator[bytes]) -> Send:
    return lambda: connections.post_file(endpoint.path, endpoint.field, next(pictures))


def shown(what: str, load: Load) -> Load:
    print(f"  {what:24} {load}", flush=True)
    return load


def engine_ms(bundle: str, dtype: str, threads: int, seconds: float) -> dict[str, float]:
    """The engine's own time for one picture at a time, without any server: medians in ms."""
    from vlm_serving.images import PictureLimits
    from vlm_serving.model_slot import load_captioner
    from vlm_serving.preprocessing import decode_for_model

    captioner = load_captioner(bundle, device="cpu", precision=dtype, threads=threads)
    limits, pictures = PictureLimits(), jpegs(1)
    times: list[tuple[float, float]] = []
    end_s = time.perf_counter() + seconds
    while len(times) < ENGINE_PICTURES or time.perf_counter() < end_s:
        data, began_s = next(pictures), time.perf_counter()
        picture = decode_for_model(data, captioner.bundle.contract, limits)
        decoded_s = time.perf_counter()
        captioner.caption_pixels(picture.pixels[None])
        times.append((decoded_s - began_s, time.perf_counter() - began_s))
    return {
        "decode": 1000 * statistics.median(one[0] for one in times),
        "total": 1000 * statistics.median(one[1] for one in times),
    }


def report(options: argparse.Namespace, turns: dict[str, list[Turn]], engine: dict[str, float]) -> None:
    """The curve, the figures with their goals, the file and the picture."""
    about = {
        "settings": {key: str(value) for key, value in vars(options).items()},
        "date": str(date.today()), "device": device_name(), "engine_ms": engine,
        "servers": {name: [to_json(turn) for turn in rounds] for name, rounds in turns.items()},
    }  # fmt: skip
    print()
    result = Report(options.json, about)
    for name, rounds in turns.items():
        result.part(figures_of(name, rounds, options))
    if "ours" in turns:
        result.part(goals(turns, engine, options))
    if options.plot:
        plot(turns, options)


def figures_of(name: str, rounds: list[Turn], options: argparse.Namespace) -> Iterator[Figure]:
    many, bound = f"{options.clients} clients", f"p95 <= {options.p95_ms:g} ms"
    yield Figure(f"{name}, 1 client, p50", tuple(turn.alone.latency_ms(50) for turn in rounds), "ms")
    for percent in (50, 95, 99):
        yield Figure(f"{name}, {many}, p{percent}", tuple(turn.many.latency_ms(percent) for turn in rounds), "ms")
    yield Figure(f"{name}, {many}", tuple(turn.many.requests_per_s for turn in rounds), "req/s")
    yield Figure(f"{name}, highest rate with {bound}", tuple(turn.bound_rate for turn in rounds), "req/s")
    equal = [turn.equal for turn in rounds if turn.equal]
    for percent in (50, 95, 99) if equal else ():
        yield Figure(f"{name}, at the equal rate, p{percent}", tuple(load.latency_ms(percent) for load in equal), "ms")


def goals(turns: dict[str, list[Turn]], engine: dict[str, float], options: argparse.Namespace) -> Iterator[Figure]:
    mine = turns["ours"]
    for name, rounds in turns.items():
        if name == "ours":
            continue
        many = tuple(own.many.requests_per_s / one.many.requests_per_s for own, one in zip(mine, rounds, strict=True))
        yield Figure(f"throughput with {options.clients} clients, ours / {name}", many, "x")
        pairs = [(own.bound_rate, theirs.bound_rate) for own, theirs in zip(mine, rounds, strict=True)]
        ratios = tuple(own / theirs for own, theirs in pairs if theirs)
        label = f"throughput at p95 <= {options.p95_ms:g} ms, ours / {name}"
        if ratios:
            yield Figure(label, ratios, "x", at_least=RATIO_GOAL)
        else:
            print(f"{label}: {name} kept the bound at no rate tried")
    above = tuple(turn.alone.latency_ms(50) - engine["total"] for turn in mine)
    yield Figure("ours, 1 client, p50 above the engine's own", above, "ms", at_most=OVERHEAD_GOAL_MS)


def to_json(turn: Turn) -> dict[str, Any]:
    tried = [{"rate": one.rate, "passed": one.passed, **load_json(one.load)} for one in turn.tried]
    loads = {"alone": turn.alone, "many": turn.many, "equal": turn.equal}
    return {"cores": turn.cores, "tried": tried, **{name: load_json(load) for name, load in loads.items() if load}}


def load_json(load: Load) -> dict[str, Any]:
    return {
        "requests_per_s": load.requests_per_s, "answered": len(load.answered), "statuses": dict(load.statuses),
        "generator_cpu": load.generator_cpu,
        **{f"p{percent}_ms": load.latency_ms(percent) for percent in (50, 95, 99)},
    }  # fmt: skip


def plot(turns: dict[str, list[Turn]], options: argparse.Namespace) -> None:
    """p95 over the rate offered, every try of every round a point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogFormatter

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, rounds in turns.items():
        points = sorted((one.rate, one.load.latency_ms(95)) for turn in rounds for one in turn.tried)
        axes.plot(*zip(*points, strict=True), "o-", label=name, linewidth=2.5 if name == "ours" else 1.2)
    axes.axhline(options.p95_ms, color="grey", linestyle=":", linewidth=1)
    axes.text(1, options.p95_ms * 1.03, f"bound: {options.p95_ms:g} ms", color="grey", fontsize=9)
    axes.set(
        xlabel="requests a second, offered at a fixed rate", ylabel="p95 from when due, ms", yscale="log",
        title=f"blip-{options.model}, {options.dtype}, JPEGs of 200 KB",
    )  # fmt: skip
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(3, 0.5)))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.plot, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
