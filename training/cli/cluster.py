"""The options of commands that may work on a Ray cluster."""

from collections.abc import Callable
from types import ModuleType

import click

from router.extras import needs

Decorated = Callable[..., None]


def executor_options(command: Decorated) -> Decorated:
    """Adds --executor and --ray-address, the arguments `executor` and `ray_address`."""
    address = click.option("--ray-address", default="auto", show_default=True, help="Address of the Ray cluster.")
    executor = click.option("--executor", "--engine", "executor", type=click.Choice(["local", "ray"]), default="local",
                            show_default=True, help="Work in this process, or on an existing Ray cluster.")  # fmt: skip
    return executor(address(command))


def ray_on(address: str) -> ModuleType:
    """The module `training.collect.ray`, connected to the cluster. Raises MissingExtra, ClusterError."""
    with needs("ray"):
        from training.collect import ray

    ray.connect(address)
    return ray
