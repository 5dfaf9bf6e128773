"""What is recorded of each query, and how a load is described."""

from __future__ import annotations

from dataclasses import dataclass, field

from lego_core.errors import LegoError


@dataclass(frozen=True)
class Load:
    """What to put on a server.

    Attributes:
        wearers: Sessions open at a time.
        rate: Queries a second over all wearers, arriving at random (Poisson), answered or not; None for a closed loop,
            where each wearer asks again once answered.
        seconds: Time in which queries are asked; those asked are waited for.
        count: Queries after which no more are asked; None for no limit.
        warm_up: Queries of each wearer before measuring starts.
        steps: Denoising steps; None takes the model's default.
        preview_every: A preview every this many steps; 0 asks for none.
        seed: Of arrivals, of the noise and of what is asked.
        time_limit: Seconds one query may take.
        deadline: Seconds after which the server is told that an answer is worth nothing; None leaves it to the server.
    """

    wearers: int = 4
    rate: float | None = None
    seconds: float = 30.0
    count: int | None = None
    warm_up: int = 1
    steps: int | None = None
    preview_every: int = 0
    seed: int = 0
    time_limit: float = 120.0
    deadline: float | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("wearers", self.wearers, 1, 10_000), ("rate", self.rate, 1e-3, 10_000),
            ("seconds", self.seconds, 0.1, 86_400), ("count", self.count, 1, 10_000_000),
            ("warm-up", self.warm_up, 0, 1000), ("steps", self.steps, 1, 1000),
            ("preview-every", self.preview_every, 0, 1000), ("timeout", self.time_limit, 0.1, 86_400),
            ("deadline", self.deadline, 0.1, 86_400),
        ):  # fmt: skip
            if value is not None and not low <= value <= high:
                raise LegoError(f"{name} is {value}; it must lie between {low} and {high}")


@dataclass
class Sample:
    """One query. Times are seconds since measuring began.

    Attributes:
        wearer: Who asked.
        intended: When it was due: in an open loop its arrival, whether or not a wearer was free to send it then.
            Latencies count from here.
        sent: When it was first sent.
        first_token: When the first words came; None if none did, as below.
        first_preview: When the first preview came.
        done: When its answer or its failure came.
        outcome: "answered", or the protocol's code of the failure in lower case.
        retry_delays: How long the wearer waited after each refusal before asking again.
    """

    wearer: int
    intended: float
    sent: float | None = None
    first_token: float | None = None
    first_preview: float | None = None
    done: float | None = None
    outcome: str = "unfinished"
    retry_delays: list[float] = field(default_factory=list)
