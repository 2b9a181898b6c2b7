"""Everything that can go wrong, as one tree.

RouterError
├── InvalidRequest        a field of a request is wrong; carries the field and why
├── NotFound              a model, tenant, rung or decision that does not exist; carries the field
├── TargetUnmet           no rung meets the target and the caller asked to be refused
├── Overloaded            there is no room for this call; carries when to try again
├── Draining              this replica is shutting down; another one answers
├── Unauthenticated       credentials are missing, wrong or expired
├── PermissionDenied      the credentials are valid, but not for this
├── DependencyError       something outside failed
│   ├── BackendError          the inference backend failed, or its answer is malformed
│   │   ├── BackendUnavailable    it fails for now; another try may succeed
│   │   │   └── BackendUnreachable    no connection to it could be made; the request was not sent
│   │   ├── BackendTimeout        it was silent for too long
│   │   ├── BackendBusy           it has no room; carries when to try again
│   │   ├── BackendRefused        it does not accept this request; another try cannot succeed
│   │   └── BackendMisconfigured  a setting is wrong about it, its key or its model; waiting cannot help
│   ├── ClassifierError       the difficulty classifier failed
│   ├── CacheError            the score cache failed
│   ├── QuotaError            the shared quotas failed
│   ├── OutcomeLogError       the outcome log failed
│   │   └── OutcomeFileError      its file is none, or cannot be opened
│   └── VerifierError         the verifier of answers failed
├── ArtifactError         a model bundle is missing, malformed or tampered with
├── SettingsError         the configuration is wrong
├── WorkerError           one of several processes that serve together does not come up
├── DrainError            the service has ended, but something was lost on the way
├── WrongUsage            an argument of a command is wrong
├── MissingExtra          a part of the package needs what is not installed; says what to type
└── ClientError           a call failed, as its caller sees it: router/client/errors.py has the kinds
"""

from typing import Self


class RouterError(Exception):
    """Base of all errors of this package; the message is fit for a client."""


class FieldError(RouterError):
    """An error in one field of the request.

    >>> str(InvalidRequest("options.max_loss", "must lie in 0..1"))
    'options.max_loss: must lie in 0..1'
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem

    def within(self, place: str) -> Self:
        """The same error with its field named from further out: `within("requests[3].")`."""
        return type(self)(place + self.field, self.problem)


class InvalidRequest(FieldError):
    """A field of a request is wrong."""


class NotFound(FieldError):
    """A model, tenant, rung or decision that does not exist."""


class TargetUnmet(RouterError):
    """No rung meets the target and the caller asked to be refused."""


class Overloaded(RouterError):
    """There is no room for this call.

    Attributes:
        cause: "calls" (too many under way), "queue" (no capacity soon enough), "wait" (no capacity came in time) or
            "quota".
        retry_after: seconds after which another try may succeed.
    """

    def __init__(self, cause: str, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.cause = cause
        self.retry_after = retry_after


class Draining(RouterError):
    """This replica is shutting down; another one answers."""

    def __init__(self) -> None:
        super().__init__("this replica is shutting down; another one answers")


class Unauthenticated(RouterError):
    """Credentials are missing, wrong or expired."""


class PermissionDenied(RouterError):
    """The credentials are valid, but not for this."""


class DependencyError(RouterError):
    """Something outside failed."""


class BackendError(DependencyError):
    """The inference backend failed, or its answer is malformed."""


class BackendUnavailable(BackendError):
    """The inference backend fails for now; another try may succeed."""


class BackendUnreachable(BackendUnavailable):
    """No connection to the inference backend could be made; the request was not sent, so it is not the cause."""


class BackendTimeout(BackendError):
    """The inference backend was silent for too long."""


class BackendBusy(BackendError):
    """The inference backend has no room for this request, which is no fault.

    Attributes:
        retry_after: seconds after which another try may succeed.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BackendRefused(BackendError):
    """The inference backend does not accept this request; another try cannot succeed.

    Attributes:
        field: the field of its request that it names, in the words of its API; "" = none.
    """

    field = ""


class BackendMisconfigured(BackendError):
    """A setting is wrong about the inference backend, which waiting does not mend.

    Attributes:
        setting: "key", "model" or "kind".
    """

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class ClassifierError(DependencyError):
    """The difficulty classifier failed."""


class CacheError(DependencyError):
    """The score cache failed."""


class PinError(DependencyError):
    """What conversations keep is unavailable."""


class QuotaError(DependencyError):
    """The shared quotas failed."""


class OutcomeLogError(DependencyError):
    """The outcome log failed."""


class OutcomeFileError(OutcomeLogError):
    """The file of the outcome log is none, or cannot be opened."""


class OutcomeLogHangs(OutcomeLogError):
    """The outcome log does not answer in time."""


class VerifierError(DependencyError):
    """The verifier of answers failed."""


class ArtifactError(RouterError):
    """A model bundle is missing, malformed or tampered with."""


class SettingsError(RouterError):
    """The configuration is wrong."""


class WorkerError(RouterError):
    """One of several processes that serve together does not come up.

    Attributes:
        code: the exit code with which its supervisor ends: that of the worker, where it has ended by itself.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class DrainError(RouterError):
    """The service has ended, but something was lost on the way: records, or a process that had to be killed."""


class WrongUsage(RouterError):
    """An argument of a command is wrong."""


class MissingExtra(RouterError):
    """A part of the package needs what is not installed; the message says what to type."""
