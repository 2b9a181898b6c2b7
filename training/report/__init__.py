"""The report of a fit as a page, as figures, as text."""
