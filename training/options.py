"""Options that several commands share."""

import click

from router.cli.strict import File, FileOrUrl

ENGINES = click.Choice(["vllm", "sglang", "llama_cpp", "openai_effort"])
"""Kinds of engines; their table is not imported for a help text."""

outcomes_file = click.option("--outcomes", type=File(), required=True, help="Parquet file of the outcome schema.")
outcome_log = click.option("--log", type=FileOrUrl(), default="var/outcomes.sqlite", show_default=True,
                           help="File or Redis URL of the outcome log; the service may be running.")  # fmt: skip
json_output = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
backend_key = click.option("--backend-key", envvar="BUDGET_ROUTER_BACKEND_KEY", default="",
                           help="Bearer token for the engine; better in BUDGET_ROUTER_BACKEND_KEY.")  # fmt: skip
