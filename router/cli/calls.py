"""Commands that call a running service."""

import json
import shlex
import sys

import click

from router.cli.display import show_decision, show_event, show_explanation, show_report_command
from router.cli.options import PROBABILITY, calls_service, program, routing_options, service_arguments
from router.cli.sampling import sampling_options
from router.cli.strict import Command, json_option
from router.client import (
    Client,
    Completion,
    DeadlineExceeded,
    Decision,
    Event,
    Prompt,
    ResponseFormat,
    RoutingOptions,
    Sampling,
    Unavailable,
    event_to_json,
    to_json,
)
from router.client.requests import LabelSource

conversation_option = click.option(
    "--conversation",
    is_flag=True,
    help='TEXT is a conversation: a JSON list of messages, such as [{"role": "user", "content": "2 + 2 ="}].',
)


@click.command(cls=Command)
@click.argument("text")
@conversation_option
@calls_service()
@routing_options
@json_option
def decide(text: str, conversation: bool, client: Client, options: RoutingOptions, as_json: bool) -> None:
    """Choose a budget for TEXT ("-" = standard input) and draw the quality curve."""
    decision = client.decide(_prompt(text, conversation), options=options)
    if as_json:
        click.echo(json.dumps(to_json(decision)))
    else:
        show_decision(decision)


@click.command(cls=Command)
@click.argument("text")
@conversation_option
@calls_service()
@routing_options
@sampling_options
@json_option
def generate(
    text: str,
    conversation: bool,
    client: Client,
    options: RoutingOptions,
    sampling: Sampling,
    form: ResponseFormat | None,
    as_json: bool,
) -> None:
    """Have the backend answer TEXT ("-" = standard input) within the chosen budget, streaming."""
    before: Event | None = None
    decision: Decision | None = None
    prompt = _prompt(text, conversation)
    events = client.generate(prompt, options=options, show_checkpoints=True, response_format=form, **sampling)
    for event in events:
        if as_json:
            click.echo(json.dumps(event_to_json(event)))
        else:
            show_event(event, before)
        before = event
        decision = event if isinstance(event, Decision) else decision
    if decision is not None and isinstance(before, Completion) and not as_json:
        show_report_command(_report(decision))


@click.command(cls=Command)
@click.argument("text", required=False)
@click.option("--id", "decision_id", help="A decision made earlier, in place of TEXT.")
@conversation_option
@calls_service()
@routing_options
@json_option
def explain(
    text: str | None,
    decision_id: str | None,
    conversation: bool,
    client: Client,
    options: RoutingOptions,
    as_json: bool,
) -> None:
    """Say why a budget is chosen for TEXT ("-" = standard input), or was chosen by the decision --id."""
    if (text is None) == (decision_id is None):
        raise click.UsageError("give TEXT or --id, one of them")
    prompt = None if text is None else _prompt(text, conversation)
    explanation = client.explain(prompt, decision_id=decision_id or "", options=options)
    if as_json:
        click.echo(json.dumps(to_json(explanation)))
    else:
        show_explanation(explanation)


@click.command(cls=Command)
@click.argument("decision_id")
@click.option("--correct", type=PROBABILITY, required=True, help="How right the answer was.")
@click.option("--by", type=click.Choice(["verifier", "judge", "user", "agreement"]), default="user", show_default=True)
@calls_service()
@json_option
def report(decision_id: str, correct: float, by: LabelSource, client: Client, as_json: bool) -> None:
    """Say how right the answer to an earlier decision was."""
    client.report_outcome(decision_id, correct=correct, label_source=by)
    click.echo(json.dumps({"decision_id": decision_id, "reported": True}) if as_json else "reported")


@click.command(cls=Command)
@calls_service(3)  # less than the image's HEALTHCHECK waits, so that it sees the reason
@json_option
def health(client: Client, as_json: bool) -> None:
    """Is the service SERVING? Exit code 1 if not; for container health checks.

    \b
    --json prints {"status": "SERVING"}, "NOT_SERVING" or "UNREACHABLE", the last with an "error".
    """
    try:
        status = "SERVING" if client.is_ready() else "NOT_SERVING"
    except (DeadlineExceeded, Unavailable) as error:
        if not as_json:
            raise
        click.echo(json.dumps({"status": "UNREACHABLE", "error": str(error)}))
        sys.exit(1)
    click.echo(json.dumps({"status": status}) if as_json else status)
    sys.exit(0 if status == "SERVING" else 1)


def _report(decision: Decision) -> str:
    """The command that reports how right the answer to a decision was, to the same service."""
    return shlex.join([program(), "report", decision.decision_id, "--correct", "1", *service_arguments()])


def _prompt(text: str, conversation: bool) -> Prompt:
    """The prompt given, or standard input; what is not Unicode, or no conversation, is a usage error."""
    try:
        given = sys.stdin.buffer.read().decode() if text == "-" else text
        given.encode()  # an argument that is not UTF-8 arrives with lone surrogates, which this refuses
    except UnicodeError:
        raise click.UsageError("TEXT is not valid UTF-8") from None
    return _messages(given) if conversation else given


def _messages(text: str) -> Prompt:
    """The messages in a text of JSON. Raises UsageError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--conversation: TEXT is not JSON: {error}") from None
    if not isinstance(found, list):
        raise click.UsageError("--conversation: TEXT is no JSON list of messages")
    return found
