"""Subject `signed`: signed events over HTTP beside unsigned ones, to two servers in turn, 32 connections each."""

from collections.abc import Iterator

from bench.intake import flow, post, serve
from bench.report import Row, number, quantile
from bench.rig import Rig

SECRET = "a secret of the benchmark"


def measure(rig: Rig) -> Iterator[Row]:
    """Timestamp, HMAC-SHA256 of the body, and what the client needs to make them."""
    rounds, seconds = rig.pick(3, 9), rig.pick(1.5, 4.0)
    rates: dict[str, list[float]] = {"": [], SECRET: []}
    took: list[float] = []
    paths = [rig.fresh("unsigned"), rig.fresh("signed")]
    for path in paths:
        flow(path.parent / "flows" / "bench")
    with serve(paths[0], paths[0].parent) as plain, serve(paths[1], paths[1].parent, SECRET) as signed:
        ports = {"": plain, SECRET: signed}
        for secret, port in ports.items():
            post(port, 0.5, "warm", secret)
        for one in range(rounds):
            for secret in list(ports)[:: 1 if one % 2 else -1]:
                posted = post(ports[secret], seconds, f"round{one}", secret)
                rates[secret].append(posted["rate"])
                took += posted["took"] if secret else []
    ms = [one * 1_000 for one in took]
    tail = f"p50 {number(quantile(ms, 0.5))} p99 {number(quantile(ms, 0.99))} ms"
    share = [mine / theirs for mine, theirs in zip(rates[SECRET], rates[""], strict=True)]
    yield Row("POST /events, unsigned, 32 connections", "events/s", rates[""])
    yield Row("POST /events, signed, 32 connections", "events/s", rates[SECRET], tail)
    yield Row("... signed / unsigned", "", share)
