"""The adaptive budget router: the smallest reasoning budget that meets a quality target, enforced."""
