"""Array types of the pipeline, named by what they hold."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
"""A table of numbers, mostly [prompts, rungs]."""

Vector = NDArray[np.float64]
"""A column of numbers, mostly [prompts]."""

Rungs = NDArray[np.intp]
"""Positions on a ladder [prompts], 0 = cheapest."""

Rows = NDArray[np.intp]
"""Positions of prompts in a table."""

Mask = NDArray[np.bool_]
"""True where a condition holds."""

Fold = tuple[Rows, Rows]
"""Rows to fit on, and the rows held out."""
