"""Does a real engine do what docs/requests.md says of each field? Every cell of its table that the model can show."""

from rich.progress import track

from benchmarks.conformance import message_rows, sampling_rows
from benchmarks.conformance.budgets import way
from benchmarks.conformance.trial import OtherwiseError, Trial
from router.backends.connect import Connection
from router.domain import Enforcement
from router.errors import BackendError, InvalidRequest
from tests.support.request_table import REFUSED, TWO_PHASES, WAYS, WORKS, Cell, cells

ROWS = {**sampling_rows.ROWS, **message_rows.ROWS}
UNSEEN = "not tried: this model takes no images"


async def measured(connection: Connection) -> list[dict[str, str]]:
    """What became of each row in one way to hold budgets, beside what the table says. Raises BackendError."""
    column = next(name for name, of in WAYS.items() if of == (connection.kind, connection.enforcement))
    async with way(connection) as (_, backend):
        trial = Trial(connection.kind, connection.url, backend)
        trial.plain = await trial.all()
        rows = [cell for cell in cells() if cell.way == column]
        return [
            {
                "field": f"{cell.path} ({cell.name})",
                "way": column,
                "table": cell.word,
                "engine": await _seen(trial, cell),
            }
            for cell in track(rows, column)
        ]


async def _seen(trial: Trial, cell: Cell) -> str:
    """The word of the table that the engine deserves, or what it did instead."""
    if cell.name in sampling_rows.SHOWN and cell.word == WORKS:
        return UNSEEN
    trial.ways.clear()
    try:
        await ROWS[cell.name](trial)
    except InvalidRequest as error:
        return REFUSED if error.field == cell.path else f"refused: {error}"
    except (OtherwiseError, BackendError) as error:
        return f"otherwise: {error}"
    native = trial.ways == {Enforcement.NATIVE}
    return WORKS if native or cell.way.endswith("two phases") else TWO_PHASES
