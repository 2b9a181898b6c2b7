import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]
    ROLE_TOOL: _ClassVar[Role]
    ROLE_DEVELOPER: _ClassVar[Role]

class OnUnmet(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_UNMET_UNSPECIFIED: _ClassVar[OnUnmet]
    ON_UNMET_TOP_RUNG: _ClassVar[OnUnmet]
    ON_UNMET_CHEAPEST_NEAR_BEST: _ClassVar[OnUnmet]
    ON_UNMET_REJECT: _ClassVar[OnUnmet]

class ReasoningEffort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASONING_EFFORT_UNSPECIFIED: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_NONE: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_MINIMAL: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_LOW: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_MEDIUM: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_HIGH: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_XHIGH: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_MAX: _ClassVar[ReasoningEffort]

class DecisionSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_SOURCE_UNSPECIFIED: _ClassVar[DecisionSource]
    DECISION_SOURCE_CLASSIFIER: _ClassVar[DecisionSource]
    DECISION_SOURCE_CACHE: _ClassVar[DecisionSource]
    DECISION_SOURCE_OVERRIDE: _ClassVar[DecisionSource]
    DECISION_SOURCE_PINNED: _ClassVar[DecisionSource]
    DECISION_SOURCE_EXPLORE: _ClassVar[DecisionSource]
    DECISION_SOURCE_FALLBACK: _ClassVar[DecisionSource]
    DECISION_SOURCE_ENGINE_DEFAULT: _ClassVar[DecisionSource]
    DECISION_SOURCE_ESCALATED: _ClassVar[DecisionSource]

class Escalation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ESCALATION_UNSPECIFIED: _ClassVar[Escalation]
    ESCALATION_TOOL_FAILED: _ClassVar[Escalation]
    ESCALATION_REPEATED_CALL: _ClassVar[Escalation]
    ESCALATION_TRUNCATED: _ClassVar[Escalation]
    ESCALATION_UNLIKE: _ClassVar[Escalation]

class Rule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RULE_UNSPECIFIED: _ClassVar[Rule]
    RULE_TEXT: _ClassVar[Rule]
    RULE_FIXED: _ClassVar[Rule]
    RULE_STOPPING: _ClassVar[Rule]

class Enforcement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENFORCEMENT_UNSPECIFIED: _ClassVar[Enforcement]
    ENFORCEMENT_NATIVE: _ClassVar[Enforcement]
    ENFORCEMENT_TWO_PHASE: _ClassVar[Enforcement]
    ENFORCEMENT_HINT: _ClassVar[Enforcement]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_NATURAL: _ClassVar[FinishReason]
    FINISH_REASON_FORCED: _ClassVar[FinishReason]
    FINISH_REASON_TRUNCATED: _ClassVar[FinishReason]
    FINISH_REASON_FILTERED: _ClassVar[FinishReason]
    FINISH_REASON_REFUSED: _ClassVar[FinishReason]
    FINISH_REASON_ABORTED: _ClassVar[FinishReason]
    FINISH_REASON_NO_ANSWER: _ClassVar[FinishReason]
    FINISH_REASON_CONVERGED: _ClassVar[FinishReason]

class CountSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COUNT_SOURCE_UNSPECIFIED: _ClassVar[CountSource]
    COUNT_SOURCE_ENGINE: _ClassVar[CountSource]
    COUNT_SOURCE_ROUTER: _ClassVar[CountSource]
    COUNT_SOURCE_NONE: _ClassVar[CountSource]
    COUNT_SOURCE_ESTIMATE: _ClassVar[CountSource]

class LabelSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_SOURCE_UNSPECIFIED: _ClassVar[LabelSource]
    LABEL_SOURCE_VERIFIER: _ClassVar[LabelSource]
    LABEL_SOURCE_JUDGE: _ClassVar[LabelSource]
    LABEL_SOURCE_USER: _ClassVar[LabelSource]
    LABEL_SOURCE_AGREEMENT: _ClassVar[LabelSource]

class LearningMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARNING_MODE_UNSPECIFIED: _ClassVar[LearningMode]
    LEARNING_MODE_OFF: _ClassVar[LearningMode]
    LEARNING_MODE_OBSERVE: _ClassVar[LearningMode]
    LEARNING_MODE_ACT: _ClassVar[LearningMode]

class LearningState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARNING_STATE_UNSPECIFIED: _ClassVar[LearningState]
    LEARNING_STATE_WAITING: _ClassVar[LearningState]
    LEARNING_STATE_COLLECTING: _ClassVar[LearningState]
    LEARNING_STATE_TESTING: _ClassVar[LearningState]
    LEARNING_STATE_CERTIFIED: _ClassVar[LearningState]
    LEARNING_STATE_SERVING: _ClassVar[LearningState]
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
ROLE_TOOL: Role
ROLE_DEVELOPER: Role
ON_UNMET_UNSPECIFIED: OnUnmet
ON_UNMET_TOP_RUNG: OnUnmet
ON_UNMET_CHEAPEST_NEAR_BEST: OnUnmet
ON_UNMET_REJECT: OnUnmet
REASONING_EFFORT_UNSPECIFIED: ReasoningEffort
REASONING_EFFORT_NONE: ReasoningEffort
REASONING_EFFORT_MINIMAL: ReasoningEffort
REASONING_EFFORT_LOW: ReasoningEffort
REASONING_EFFORT_MEDIUM: ReasoningEffort
REASONING_EFFORT_HIGH: ReasoningEffort
REASONING_EFFORT_XHIGH: ReasoningEffort
REASONING_EFFORT_MAX: ReasoningEffort
DECISION_SOURCE_UNSPECIFIED: DecisionSource
DECISION_SOURCE_CLASSIFIER: DecisionSource
DECISION_SOURCE_CACHE: DecisionSource
DECISION_SOURCE_OVERRIDE: DecisionSource
DECISION_SOURCE_PINNED: DecisionSource
DECISION_SOURCE_EXPLORE: DecisionSource
DECISION_SOURCE_FALLBACK: DecisionSource
DECISION_SOURCE_ENGINE_DEFAULT: DecisionSource
DECISION_SOURCE_ESCALATED: DecisionSource
ESCALATION_UNSPECIFIED: Escalation
ESCALATION_TOOL_FAILED: Escalation
ESCALATION_REPEATED_CALL: Escalation
ESCALATION_TRUNCATED: Escalation
ESCALATION_UNLIKE: Escalation
RULE_UNSPECIFIED: Rule
RULE_TEXT: Rule
RULE_FIXED: Rule
RULE_STOPPING: Rule
ENFORCEMENT_UNSPECIFIED: Enforcement
ENFORCEMENT_NATIVE: Enforcement
ENFORCEMENT_TWO_PHASE: Enforcement
ENFORCEMENT_HINT: Enforcement
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_NATURAL: FinishReason
FINISH_REASON_FORCED: FinishReason
FINISH_REASON_TRUNCATED: FinishReason
FINISH_REASON_FILTERED: FinishReason
FINISH_REASON_REFUSED: FinishReason
FINISH_REASON_ABORTED: FinishReason
FINISH_REASON_NO_ANSWER: FinishReason
FINISH_REASON_CONVERGED: FinishReason
COUNT_SOURCE_UNSPECIFIED: CountSource
COUNT_SOURCE_ENGINE: CountSource
COUNT_SOURCE_ROUTER: CountSource
COUNT_SOURCE_NONE: CountSource
COUNT_SOURCE_ESTIMATE: CountSource
LABEL_SOURCE_UNSPECIFIED: LabelSource
LABEL_SOURCE_VERIFIER: LabelSource
LABEL_SOURCE_JUDGE: LabelSource
LABEL_SOURCE_USER: LabelSource
LABEL_SOURCE_AGREEMENT: LabelSource
LEARNING_MODE_UNSPECIFIED: LearningMode
LEARNING_MODE_OFF: LearningMode
LEARNING_MODE_OBSERVE: LearningMode
LEARNING_MODE_ACT: LearningMode
LEARNING_STATE_UNSPECIFIED: LearningState
LEARNING_STATE_WAITING: LearningState
LEARNING_STATE_COLLECTING: LearningState
LEARNING_STATE_TESTING: LearningState
LEARNING_STATE_CERTIFIED: LearningState
LEARNING_STATE_SERVING: LearningState

class Message(_message.Message):
    __slots__ = ("role", "content", "tool_calls", "tool_call_id", "image_urls", "parts", "reasoning", "tool_failed")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_URLS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    TOOL_FAILED_FIELD_NUMBER: _ClassVar[int]
    role: Role
    content: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    tool_call_id: str
    image_urls: _containers.RepeatedScalarFieldContainer[str]
    parts: _containers.RepeatedCompositeFieldContainer[ContentPart]
    reasoning: str
    tool_failed: bool
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., content: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., tool_call_id: _Optional[str] = ..., image_urls: _Optional[_Iterable[str]] = ..., parts: _Optional[_Iterable[_Union[ContentPart, _Mapping]]] = ..., reasoning: _Optional[str] = ..., tool_failed: _Optional[bool] = ...) -> None: ...

class ContentPart(_message.Message):
    __slots__ = ("text", "image_url")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_URL_FIELD_NUMBER: _ClassVar[int]
    text: str
    image_url: str
    def __init__(self, text: _Optional[str] = ..., image_url: _Optional[str] = ...) -> None: ...

class ToolCall(_message.Message):
    __slots__ = ("id", "name", "arguments")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    arguments: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., arguments: _Optional[str] = ...) -> None: ...

class Tool(_message.Message):
    __slots__ = ("name", "description", "parameters", "strict")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    parameters: str
    strict: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., parameters: _Optional[str] = ..., strict: _Optional[bool] = ...) -> None: ...

class RoutingOptions(_message.Message):
    __slots__ = ("max_loss", "min_quality", "min_thinking_tokens", "max_thinking_tokens", "max_latency", "on_unmet", "rung", "conversation_id", "per_prompt_target", "escalate", "reasoning_effort")
    MAX_LOSS_FIELD_NUMBER: _ClassVar[int]
    MIN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    MIN_THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_LATENCY_FIELD_NUMBER: _ClassVar[int]
    ON_UNMET_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    PER_PROMPT_TARGET_FIELD_NUMBER: _ClassVar[int]
    ESCALATE_FIELD_NUMBER: _ClassVar[int]
    REASONING_EFFORT_FIELD_NUMBER: _ClassVar[int]
    max_loss: float
    min_quality: float
    min_thinking_tokens: int
    max_thinking_tokens: int
    max_latency: _duration_pb2.Duration
    on_unmet: OnUnmet
    rung: str
    conversation_id: str
    per_prompt_target: bool
    escalate: bool
    reasoning_effort: ReasoningEffort
    def __init__(self, max_loss: _Optional[float] = ..., min_quality: _Optional[float] = ..., min_thinking_tokens: _Optional[int] = ..., max_thinking_tokens: _Optional[int] = ..., max_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., on_unmet: _Optional[_Union[OnUnmet, str]] = ..., rung: _Optional[str] = ..., conversation_id: _Optional[str] = ..., per_prompt_target: _Optional[bool] = ..., escalate: _Optional[bool] = ..., reasoning_effort: _Optional[_Union[ReasoningEffort, str]] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("messages", "options", "model", "tenant")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    options: RoutingOptions
    model: str
    tenant: str
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., options: _Optional[_Union[RoutingOptions, _Mapping]] = ..., model: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class DecideBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[DecideRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[DecideRequest, _Mapping]]] = ...) -> None: ...

class DecideBatchResponse(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ...) -> None: ...

class RungForecast(_message.Message):
    __slots__ = ("rung", "budget_tokens", "quality", "mean_thinking_tokens", "p50_thinking_tokens", "p90_thinking_tokens", "p99_thinking_tokens", "thinking_tokens_unknown")
    RUNG_FIELD_NUMBER: _ClassVar[int]
    BUDGET_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    MEAN_THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    P50_THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    P90_THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    P99_THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    THINKING_TOKENS_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    rung: str
    budget_tokens: int
    quality: float
    mean_thinking_tokens: float
    p50_thinking_tokens: float
    p90_thinking_tokens: float
    p99_thinking_tokens: float
    thinking_tokens_unknown: bool
    def __init__(self, rung: _Optional[str] = ..., budget_tokens: _Optional[int] = ..., quality: _Optional[float] = ..., mean_thinking_tokens: _Optional[float] = ..., p50_thinking_tokens: _Optional[float] = ..., p90_thinking_tokens: _Optional[float] = ..., p99_thinking_tokens: _Optional[float] = ..., thinking_tokens_unknown: _Optional[bool] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("alpha", "delta", "threshold", "prompts", "rung")
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    alpha: float
    delta: float
    threshold: float
    prompts: int
    rung: str
    def __init__(self, alpha: _Optional[float] = ..., delta: _Optional[float] = ..., threshold: _Optional[float] = ..., prompts: _Optional[int] = ..., rung: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("decision_id", "rung", "budget_tokens", "predicted_quality", "max_loss", "min_quality", "meets_target", "certified", "reason", "source", "model_version", "forecasts", "certificate", "model", "relaxed", "per_prompt_target", "rule", "checkpoints", "expected_thinking_tokens", "truncated_characters", "escalation")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    BUDGET_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_QUALITY_FIELD_NUMBER: _ClassVar[int]
    MAX_LOSS_FIELD_NUMBER: _ClassVar[int]
    MIN_QUALITY_FIELD_NUMBER: _ClassVar[int]
    MEETS_TARGET_FIELD_NUMBER: _ClassVar[int]
    CERTIFIED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    FORECASTS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RELAXED_FIELD_NUMBER: _ClassVar[int]
    PER_PROMPT_TARGET_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    ESCALATION_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    rung: str
    budget_tokens: int
    predicted_quality: float
    max_loss: float
    min_quality: float
    meets_target: bool
    certified: bool
    reason: str
    source: DecisionSource
    model_version: str
    forecasts: _containers.RepeatedCompositeFieldContainer[RungForecast]
    certificate: Certificate
    model: str
    relaxed: float
    per_prompt_target: bool
    rule: Rule
    checkpoints: _containers.RepeatedScalarFieldContainer[str]
    expected_thinking_tokens: float
    truncated_characters: int
    escalation: Escalation
    def __init__(self, decision_id: _Optional[str] = ..., rung: _Optional[str] = ..., budget_tokens: _Optional[int] = ..., predicted_quality: _Optional[float] = ..., max_loss: _Optional[float] = ..., min_quality: _Optional[float] = ..., meets_target: _Optional[bool] = ..., certified: _Optional[bool] = ..., reason: _Optional[str] = ..., source: _Optional[_Union[DecisionSource, str]] = ..., model_version: _Optional[str] = ..., forecasts: _Optional[_Iterable[_Union[RungForecast, _Mapping]]] = ..., certificate: _Optional[_Union[Certificate, _Mapping]] = ..., model: _Optional[str] = ..., relaxed: _Optional[float] = ..., per_prompt_target: _Optional[bool] = ..., rule: _Optional[_Union[Rule, str]] = ..., checkpoints: _Optional[_Iterable[str]] = ..., expected_thinking_tokens: _Optional[float] = ..., truncated_characters: _Optional[int] = ..., escalation: _Optional[_Union[Escalation, str]] = ...) -> None: ...

class SamplingOptions(_message.Message):
    __slots__ = ("temperature", "max_answer_tokens", "seed", "top_p", "top_k", "min_p", "stop", "presence_penalty", "frequency_penalty", "repetition_penalty", "logprobs", "top_logprobs")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    MAX_ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TOP_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    max_answer_tokens: int
    seed: int
    top_p: float
    top_k: int
    min_p: float
    stop: _containers.RepeatedScalarFieldContainer[str]
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logprobs: bool
    top_logprobs: int
    def __init__(self, temperature: _Optional[float] = ..., max_answer_tokens: _Optional[int] = ..., seed: _Optional[int] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., min_p: _Optional[float] = ..., stop: _Optional[_Iterable[str]] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., logprobs: _Optional[bool] = ..., top_logprobs: _Optional[int] = ...) -> None: ...

class ResponseFormat(_message.Message):
    __slots__ = ("type", "json_schema", "name", "strict")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    type: str
    json_schema: str
    name: str
    strict: bool
    def __init__(self, type: _Optional[str] = ..., json_schema: _Optional[str] = ..., name: _Optional[str] = ..., strict: _Optional[bool] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("messages", "options", "model", "tenant", "sampling", "tools", "tool_choice", "show_checkpoints", "response_format", "parallel_tool_calls")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_FIELD_NUMBER: _ClassVar[int]
    SHOW_CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    options: RoutingOptions
    model: str
    tenant: str
    sampling: SamplingOptions
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    tool_choice: str
    show_checkpoints: bool
    response_format: ResponseFormat
    parallel_tool_calls: bool
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., options: _Optional[_Union[RoutingOptions, _Mapping]] = ..., model: _Optional[str] = ..., tenant: _Optional[str] = ..., sampling: _Optional[_Union[SamplingOptions, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ..., tool_choice: _Optional[str] = ..., show_checkpoints: _Optional[bool] = ..., response_format: _Optional[_Union[ResponseFormat, _Mapping]] = ..., parallel_tool_calls: _Optional[bool] = ...) -> None: ...

class Completion(_message.Message):
    __slots__ = ("finish_reason", "prompt_tokens", "thinking_tokens", "answer_tokens", "count_source", "enforcement", "budget_tokens", "budget_violated", "rung", "attempts", "reported_thinking_tokens", "counts_disagree", "probe_tokens", "stop")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COUNT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_VIOLATED_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    REPORTED_THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_DISAGREE_FIELD_NUMBER: _ClassVar[int]
    PROBE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    prompt_tokens: int
    thinking_tokens: int
    answer_tokens: int
    count_source: CountSource
    enforcement: Enforcement
    budget_tokens: int
    budget_violated: bool
    rung: str
    attempts: int
    reported_thinking_tokens: int
    counts_disagree: bool
    probe_tokens: int
    stop: str
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ..., prompt_tokens: _Optional[int] = ..., thinking_tokens: _Optional[int] = ..., answer_tokens: _Optional[int] = ..., count_source: _Optional[_Union[CountSource, str]] = ..., enforcement: _Optional[_Union[Enforcement, str]] = ..., budget_tokens: _Optional[int] = ..., budget_violated: _Optional[bool] = ..., rung: _Optional[str] = ..., attempts: _Optional[int] = ..., reported_thinking_tokens: _Optional[int] = ..., counts_disagree: _Optional[bool] = ..., probe_tokens: _Optional[int] = ..., stop: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("rung", "thinking_tokens", "answer", "probe_tokens", "stood", "mean_logprob", "stops")
    RUNG_FIELD_NUMBER: _ClassVar[int]
    THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    PROBE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOOD_FIELD_NUMBER: _ClassVar[int]
    MEAN_LOGPROB_FIELD_NUMBER: _ClassVar[int]
    STOPS_FIELD_NUMBER: _ClassVar[int]
    rung: str
    thinking_tokens: int
    answer: str
    probe_tokens: int
    stood: int
    mean_logprob: float
    stops: bool
    def __init__(self, rung: _Optional[str] = ..., thinking_tokens: _Optional[int] = ..., answer: _Optional[str] = ..., probe_tokens: _Optional[int] = ..., stood: _Optional[int] = ..., mean_logprob: _Optional[float] = ..., stops: _Optional[bool] = ...) -> None: ...

class ToolCallDelta(_message.Message):
    __slots__ = ("index", "call")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    index: int
    call: ToolCall
    def __init__(self, index: _Optional[int] = ..., call: _Optional[_Union[ToolCall, _Mapping]] = ...) -> None: ...

class Logprobs(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, tokens: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token", "logprob", "top")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    token: str
    logprob: float
    top: _containers.RepeatedCompositeFieldContainer[LikelyToken]
    def __init__(self, token: _Optional[str] = ..., logprob: _Optional[float] = ..., top: _Optional[_Iterable[_Union[LikelyToken, _Mapping]]] = ...) -> None: ...

class LikelyToken(_message.Message):
    __slots__ = ("token", "logprob")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    token: str
    logprob: float
    def __init__(self, token: _Optional[str] = ..., logprob: _Optional[float] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("decision", "reasoning", "content", "completion", "tool_call", "refusal", "checkpoint", "logprobs")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    reasoning: str
    content: str
    completion: Completion
    tool_call: ToolCallDelta
    refusal: str
    checkpoint: Checkpoint
    logprobs: Logprobs
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., reasoning: _Optional[str] = ..., content: _Optional[str] = ..., completion: _Optional[_Union[Completion, _Mapping]] = ..., tool_call: _Optional[_Union[ToolCallDelta, _Mapping]] = ..., refusal: _Optional[str] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., logprobs: _Optional[_Union[Logprobs, _Mapping]] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("decision_id", "correct", "label_source")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    LABEL_SOURCE_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    correct: float
    label_source: LabelSource
    def __init__(self, decision_id: _Optional[str] = ..., correct: _Optional[float] = ..., label_source: _Optional[_Union[LabelSource, str]] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("decision_id", "request", "tenant")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    request: DecideRequest
    tenant: str
    def __init__(self, decision_id: _Optional[str] = ..., request: _Optional[_Union[DecideRequest, _Mapping]] = ..., tenant: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("decision", "sentences")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    sentences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ..., sentences: _Optional[_Iterable[str]] = ...) -> None: ...

class GetModelStatusRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelStatusResponse(_message.Message):
    __slots__ = ("model", "model_version", "created_at", "rungs", "certificates", "backend_fingerprint", "enforcement", "suspended", "stopping", "steps")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    RUNGS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ENFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    created_at: _timestamp_pb2.Timestamp
    rungs: _containers.RepeatedScalarFieldContainer[str]
    certificates: _containers.RepeatedCompositeFieldContainer[Certificate]
    backend_fingerprint: str
    enforcement: Enforcement
    suspended: str
    stopping: _containers.RepeatedCompositeFieldContainer[StoppingCertificate]
    steps: bool
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rungs: _Optional[_Iterable[str]] = ..., certificates: _Optional[_Iterable[_Union[Certificate, _Mapping]]] = ..., backend_fingerprint: _Optional[str] = ..., enforcement: _Optional[_Union[Enforcement, str]] = ..., suspended: _Optional[str] = ..., stopping: _Optional[_Iterable[_Union[StoppingCertificate, _Mapping]]] = ..., steps: _Optional[bool] = ...) -> None: ...

class StoppingCertificate(_message.Message):
    __slots__ = ("alpha", "delta", "prompts", "rule", "thinking_tokens", "probe_tokens")
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    THINKING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROBE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    alpha: float
    delta: float
    prompts: int
    rule: str
    thinking_tokens: float
    probe_tokens: float
    def __init__(self, alpha: _Optional[float] = ..., delta: _Optional[float] = ..., prompts: _Optional[int] = ..., rule: _Optional[str] = ..., thinking_tokens: _Optional[float] = ..., probe_tokens: _Optional[float] = ...) -> None: ...

class PromoteModelRequest(_message.Message):
    __slots__ = ("path", "model")
    PATH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    path: str
    model: str
    def __init__(self, path: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class PromoteModelResponse(_message.Message):
    __slots__ = ("model_version",)
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    def __init__(self, model_version: _Optional[str] = ...) -> None: ...

class RollbackModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class RollbackModelResponse(_message.Message):
    __slots__ = ("model_version",)
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    def __init__(self, model_version: _Optional[str] = ...) -> None: ...

class FlushCacheRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class FlushCacheResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLearningStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLearningStatusResponse(_message.Message):
    __slots__ = ("mode", "requests", "evidence", "learning", "saved", "suspended", "lessons")
    MODE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    LESSONS_FIELD_NUMBER: _ClassVar[int]
    mode: LearningMode
    requests: int
    evidence: int
    learning: LearningProgress
    saved: SavedTokens
    suspended: str
    lessons: _containers.RepeatedCompositeFieldContainer[LessonCount]
    def __init__(self, mode: _Optional[_Union[LearningMode, str]] = ..., requests: _Optional[int] = ..., evidence: _Optional[int] = ..., learning: _Optional[_Union[LearningProgress, _Mapping]] = ..., saved: _Optional[_Union[SavedTokens, _Mapping]] = ..., suspended: _Optional[str] = ..., lessons: _Optional[_Iterable[_Union[LessonCount, _Mapping]]] = ...) -> None: ...

class LessonCount(_message.Message):
    __slots__ = ("outcome", "requests")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    requests: int
    def __init__(self, outcome: _Optional[str] = ..., requests: _Optional[int] = ...) -> None: ...

class SavedTokens(_message.Message):
    __slots__ = ("tokens", "low", "high", "top", "requests", "drawn")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DRAWN_FIELD_NUMBER: _ClassVar[int]
    tokens: float
    low: float
    high: float
    top: float
    requests: int
    drawn: int
    def __init__(self, tokens: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., top: _Optional[float] = ..., requests: _Optional[int] = ..., drawn: _Optional[int] = ...) -> None: ...

class LearningProgress(_message.Message):
    __slots__ = ("state", "reason", "at", "engine", "rungs", "max_loss", "delta", "evidence", "pieces_an_hour", "rounds", "targets", "spent_tokens", "model_version", "began", "promoted")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    RUNGS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOSS_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    PIECES_AN_HOUR_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    SPENT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    BEGAN_FIELD_NUMBER: _ClassVar[int]
    PROMOTED_FIELD_NUMBER: _ClassVar[int]
    state: LearningState
    reason: str
    at: _timestamp_pb2.Timestamp
    engine: str
    rungs: _containers.RepeatedScalarFieldContainer[str]
    max_loss: float
    delta: float
    evidence: EvidenceCounts
    pieces_an_hour: float
    rounds: _containers.RepeatedCompositeFieldContainer[LearningRound]
    targets: _containers.RepeatedCompositeFieldContainer[LearningTarget]
    spent_tokens: int
    model_version: str
    began: str
    promoted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[_Union[LearningState, str]] = ..., reason: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., engine: _Optional[str] = ..., rungs: _Optional[_Iterable[str]] = ..., max_loss: _Optional[float] = ..., delta: _Optional[float] = ..., evidence: _Optional[_Union[EvidenceCounts, _Mapping]] = ..., pieces_an_hour: _Optional[float] = ..., rounds: _Optional[_Iterable[_Union[LearningRound, _Mapping]]] = ..., targets: _Optional[_Iterable[_Union[LearningTarget, _Mapping]]] = ..., spent_tokens: _Optional[int] = ..., model_version: _Optional[str] = ..., began: _Optional[str] = ..., promoted: _Optional[_Iterable[str]] = ...) -> None: ...

class EvidenceCounts(_message.Message):
    __slots__ = ("pieces", "groups", "unusable", "free", "judged", "reported", "unknown", "tenants", "largest_tenant")
    PIECES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    REPORTED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_TENANT_FIELD_NUMBER: _ClassVar[int]
    pieces: int
    groups: int
    unusable: int
    free: int
    judged: int
    reported: int
    unknown: int
    tenants: int
    largest_tenant: float
    def __init__(self, pieces: _Optional[int] = ..., groups: _Optional[int] = ..., unusable: _Optional[int] = ..., free: _Optional[int] = ..., judged: _Optional[int] = ..., reported: _Optional[int] = ..., unknown: _Optional[int] = ..., tenants: _Optional[int] = ..., largest_tenant: _Optional[float] = ...) -> None: ...

class LearningRound(_message.Message):
    __slots__ = ("number", "fitted", "tested", "delta", "policies", "passed", "wealth")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FITTED_FIELD_NUMBER: _ClassVar[int]
    TESTED_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    WEALTH_FIELD_NUMBER: _ClassVar[int]
    number: int
    fitted: int
    tested: int
    delta: float
    policies: int
    passed: int
    wealth: float
    def __init__(self, number: _Optional[int] = ..., fitted: _Optional[int] = ..., tested: _Optional[int] = ..., delta: _Optional[float] = ..., policies: _Optional[int] = ..., passed: _Optional[int] = ..., wealth: _Optional[float] = ...) -> None: ...

class LearningTarget(_message.Message):
    __slots__ = ("max_loss", "saving", "round", "rung", "groups", "wanted")
    MAX_LOSS_FIELD_NUMBER: _ClassVar[int]
    SAVING_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    max_loss: float
    saving: TokenSaving
    round: int
    rung: int
    groups: int
    wanted: int
    def __init__(self, max_loss: _Optional[float] = ..., saving: _Optional[_Union[TokenSaving, _Mapping]] = ..., round: _Optional[int] = ..., rung: _Optional[int] = ..., groups: _Optional[int] = ..., wanted: _Optional[int] = ...) -> None: ...

class TokenSaving(_message.Message):
    __slots__ = ("share", "low", "high", "tokens")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    share: float
    low: float
    high: float
    tokens: float
    def __init__(self, share: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., tokens: _Optional[float] = ...) -> None: ...
