"""A verifier by agreement, where there is no better one."""

from router.answer_keys import agree


class Agreement:
    """Judges by agreement: an answer that differs from the top rung's counts as wrong.

    The loss is overestimated, so alarms come too early rather than too late. It works where answers are short.

    Args:
        kind: how answers are compared beside their texts, a name in `router.answer_keys.KINDS`.
    """

    def __init__(self, kind: str = "text") -> None:
        self._kind = kind

    async def correct(self, prompt: object, answers: list[str]) -> list[float]:
        """1 for the first answer and for those that agree with it, up to case and spaces; 0 for others."""
        return [float(agree(answer, answers[0], self._kind)) for answer in answers]
