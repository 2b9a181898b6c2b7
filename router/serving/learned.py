"""How far learning has come, read again and again for the metrics, and at once for the admin service."""

import asyncio
from dataclasses import replace
from pathlib import Path

from router.learning import overview
from router.learning.overview import Mode, Overview

READ_SECONDS = 5.0
"""Between two looks at the learning folder."""


class Learned:
    """What is in a learning folder.

    Args:
        folder: None where nothing is learned.

    Attributes:
        latest: as it was read last.
    """

    def __init__(self, folder: Path | None, mode: Mode) -> None:
        self._folder, self._mode = folder, mode
        self.latest = Overview(mode)

    def read(self) -> Overview:
        """How far learning has come; blocks. Raises ArtifactError, OutcomeFileError."""
        return Overview() if self._folder is None else replace(overview.read(self._folder), mode=self._mode)

    async def follow(self) -> None:
        """Keep `latest` up to date. Runs until cancelled. Raises ArtifactError, OutcomeFileError."""
        while True:
            self.latest = await asyncio.to_thread(self.read)
            await asyncio.sleep(READ_SECONDS)
