"""Everything that touches a foreign system."""
