"""Enums of the domain and of the API: one table for each, read in both directions."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from router._gen import budget_router_pb2 as pb
from router.domain import (
    CountSource,
    DecisionSource,
    Enforcement,
    Escalation,
    FinishReason,
    LabelSource,
    OnUnmet,
    ReasoningEffort,
    Role,
    Rule,
)
from router.errors import InvalidRequest

E = TypeVar("E", bound=Enum)


class EnumTable(Generic[E]):
    """An enum of the domain beside the API's, whose values have the same names behind a prefix.

    Args:
        default: what a field that is not set means; None where it must be set.

    Attributes:
        members: the domain's member by the API's number.
        numbers: the API's number by the domain's member; Any, since the stubs of each message want its own enum type.
    """

    def __init__(self, enum: type[E], api: EnumTypeWrapper, prefix: str, default: E | None = None) -> None:
        self.numbers: Mapping[E, Any] = {member: api.Value(f"{prefix}_{member.name}") for member in enum}
        unset = {} if default is None else {api.Value(f"{prefix}_UNSPECIFIED"): default}
        self.members: Mapping[int, E] = {number: member for member, number in self.numbers.items()} | unset

    def member(self, number: int, field: str) -> E:
        """The domain's member for a number in `field` of a request. Raises InvalidRequest where there is none."""
        try:
            return self.members[number]
        except KeyError:
            raise InvalidRequest(field, "is required and must be one of the API's values") from None


ROLES = EnumTable(Role, pb.Role, "ROLE")
ON_UNMET = EnumTable(OnUnmet, pb.OnUnmet, "ON_UNMET", OnUnmet.TOP_RUNG)
REASONING_EFFORTS = EnumTable(ReasoningEffort, pb.ReasoningEffort, "REASONING_EFFORT")
LABEL_SOURCES = EnumTable(LabelSource, pb.LabelSource, "LABEL_SOURCE")
DECISION_SOURCES = EnumTable(DecisionSource, pb.DecisionSource, "DECISION_SOURCE")
ESCALATIONS = EnumTable(Escalation, pb.Escalation, "ESCALATION")
RULES = EnumTable(Rule, pb.Rule, "RULE")
ENFORCEMENTS = EnumTable(Enforcement, pb.Enforcement, "ENFORCEMENT")
FINISH_REASONS = EnumTable(FinishReason, pb.FinishReason, "FINISH_REASON")
COUNT_SOURCES = EnumTable(CountSource, pb.CountSource, "COUNT_SOURCE")
