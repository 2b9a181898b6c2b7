"""The command `budget-router plan`: what targets and deadlines would have meant for recorded traffic."""

from training.plan.command import plan

__all__ = ["plan"]
