"""`lego-train curate`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from lego_core.command import Stopped
from lego_core.errors import LegoError

if TYPE_CHECKING:
    from lego_training.curate.cost import Price, Usage
    from lego_training.curate.run import Inquiry, Outcome
    from lego_training.curate.scenes import Scene


def curate(
    data: Annotated[Path, typer.Argument(help="Dataset directory.")],
    dataset: Annotated[str, typer.Option(help="Name of the dataset within its directory, such as epickitchen.")],
    endpoint: Annotated[str, typer.Option(help="Base address of an OpenAI-compatible endpoint, ending in /v1.")],
    model: Annotated[str, typer.Option(help="Name of the model, as the endpoint knows it.")],
    out: Annotated[Path, typer.Option(help="Curation file to write; journal and report are put beside it.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Records, drawn at random; default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw, the questions' wording and the model's sampling.")] = 0,
    prompt: Annotated[Path | None, typer.Option(help="YAML of another prompt than the dataset's.")] = None,
    request: Annotated[
        list[str] | None, typer.Option(help="Setting of the requests, such as temperature=0 or seed=null; repeatable.")
    ] = None,
    without_boxes: Annotated[
        bool, typer.Option("--without-boxes", help="Take records without boxes too, by their label alone.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")] = 8,
    attempts: Annotated[int, typer.Option(min=1, max=10, help="Answers asked for until one is fit.")] = 3,
    tries: Annotated[int, typer.Option(min=1, max=20, help="Of one request while the endpoint fails.")] = 6,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 120.0,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the API key.")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File that holds the API key.")] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="US dollars for a million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="US dollars for a million answered tokens.")] = None,
    write_descriptions: Annotated[
        bool, typer.Option("--write-descriptions", help="Put them into the dataset too, where it has none.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the first request.")] = False,
) -> None:
    """Have a chat LLM write enriched action descriptions, for tune-vllm --curation."""
    from lego_training.curate import output
    from lego_training.curate.checks import Vocabulary
    from lego_training.curate.cost import Price, estimate
    from lego_training.curate.endpoint import ChatEndpoint, Patience, check_address
    from lego_training.curate.journal import Journal, request_key
    from lego_training.curate.prompt import load_prompt, override_request, prompt_path
    from lego_training.curate.report import report, write_report
    from lego_training.curate.run import Inquiry
    from lego_training.curate.scenes import read_scenes

    if (price_in is None) != (price_out is None):
        raise LegoError("give both --price-in and --price-out, or neither")
    price = None if price_in is None or price_out is None else Price(price_in, price_out)
    check_address(endpoint)
    key = _api_key(api_key_env, api_key_file)
    words = load_prompt(prompt or prompt_path(dataset))
    settings = override_request({"seed": seed, **words.request}, request or [])
    scenes = read_scenes(data, dataset, without_boxes, limit, seed)
    inquiry = Inquiry(model, words, settings, Vocabulary(words.things, scenes.names), attempts)
    journal_path = out.with_suffix(".journal.jsonl")
    if out.exists() and not journal_path.exists():
        raise LegoError(f"{out} exists and was not made by this command; choose another name")
    with Journal(journal_path) as journal:
        bodies = ((scene.record, inquiry.first_body(scene)) for scene in scenes.chosen)
        expected = estimate(body for record, body in bodies if journal.get(request_key(record, body)) is None)
        _confirm(expected, len(scenes.chosen), len(scenes.left_out), endpoint, model, price, yes)

        async def run() -> list[Outcome]:
            async with ChatEndpoint(endpoint, key, Patience(tries=tries, timeout=timeout)) as chat:
                return await _with_progress(scenes.chosen, inquiry, chat, journal, concurrency)

        try:
            outcomes = asyncio.run(run())
        except asyncio.CancelledError:  # the second Ctrl-C
            raise Stopped("requests under way were dropped; run the same command again to go on") from None
    if len(outcomes) < len(scenes.chosen):
        raise Stopped(f"{len(outcomes)} of {len(scenes.chosen)} records are done; run the same command again to go on")
    accepted = [(outcome.scene, outcome.text) for outcome in outcomes if outcome.status == "accepted"]
    made_with: dict[str, Any] = {
        "dataset": dataset, "endpoint": endpoint, "model": model, "prompt": words.name, "seed": seed, "limit": limit,
        "attempts": attempts, "request": settings,
    }  # fmt: skip
    figures = report(outcomes, scenes.left_out, price, made_with)
    report_path = out.with_suffix(".report.json")
    write_report(figures, report_path)
    output.write_curation(out, accepted, seed)
    filled = None
    if write_descriptions:
        filled = output.write_descriptions(data, dataset, {scene.record: text for scene, text in accepted})
    _tell(figures, out, report_path, filled)
    if figures["unanswered"]:
        raise typer.Exit(1)


def _api_key(variable: str | None, file: Path | None) -> str | None:
    """The key, if one is named; it goes nowhere but into the requests' header."""
    if variable and file:
        raise LegoError("give --api-key-env or --api-key-file, not both")
    if variable:
        if not os.environ.get(variable, "").strip():
            raise LegoError(f"the environment variable that --api-key-env names is not set: {_safe_name(variable)}")
        return os.environ[variable].strip()
    return file.read_text(encoding="utf-8").strip() if file else None


def _safe_name(variable: str) -> str:
    """A variable's name, unless it is none: someone may have given the key itself."""
    return variable if variable.isidentifier() and len(variable) <= 40 else "(not a name of one; did you give the key?)"


def _confirm(
    expected: Usage, chosen: int, left_out: int, endpoint: str, model: str, price: Price | None, yes: bool
) -> None:
    if left_out:
        typer.echo(f"{left_out} records cannot be curated; the report says why", err=True)
    if not expected.requests:
        typer.echo(f"all {chosen} records were asked about before", err=True)
        return
    money = "money unknown without --price-in and --price-out"
    if price is not None:
        money = f"about {price.of(expected.prompt_tokens, expected.completion_tokens):.2f} USD"
    typer.echo(
        f"{expected.requests} of {chosen} records to ask {model} at {endpoint} about: some {expected.prompt_tokens} "
        f"tokens to send and {expected.completion_tokens} to receive, estimated without the model's tokenizer and "
        f"without second answers; {money}",
        err=True,
    )
    if not yes:
        typer.confirm("go on?", abort=True, err=True)


async def _with_progress(
    scenes: list[Scene], inquiry: Inquiry, endpoint: Any, journal: Any, concurrency: int
) -> list[Outcome]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from lego_training.curate import run

    columns = (
        TextColumn("describing records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[rejected]} rejected"),
    )  # fmt: skip
    rejected = 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(scenes), rejected=0)

        def advance(outcome: Outcome) -> None:
            nonlocal rejected
            rejected += outcome.status == "rejected"
            progress.update(task, advance=1, rejected=rejected)

        return await run.curate(scenes, inquiry, endpoint, journal, concurrency, advance)


def _tell(figures: dict[str, Any], out: Path, report_path: Path, filled: int | None) -> None:
    money = "" if figures["usd"] is None else f", {figures['usd']:.2f} USD"
    typer.echo(
        f"wrote {figures['accepted']} descriptions to {out} ({figures['rejected']} rejected, {figures['unanswered']} "
        f"unanswered, {figures['left_out']} left out; {figures['requests']} requests, {figures['prompt_tokens']} + "
        f"{figures['completion_tokens']} tokens{money}); report in {report_path} and .html"
    )
    if filled is not None:
        typer.echo(f"put {filled} of them into the dataset; the other records have their descriptions already")
    if figures["unanswered"]:
        typer.echo("run the same command again to ask about the unanswered records", err=True)
