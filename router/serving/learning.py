"""Builds from settings what learns from answers, and what audits them. An exit stack closes it."""

import asyncio
from contextlib import AsyncExitStack

import structlog

from router.admission.fair_queue import FairQueue
from router.bundle import manifest
from router.learning import store
from router.learning.examiner import Examiner
from router.learning.journal import Journal
from router.learning.judging import ByVerifier, Judge
from router.learning.learner import Course, Learner
from router.learning.quiet import QuietMoments
from router.learning.traffic import Traffic
from router.outcomes.agreement import Agreement
from router.outcomes.audit import Auditor, TokenBucket
from router.outcomes.e_process import Ledger
from router.outcomes.rows import PromptHasher
from router.ports import Observer, Verifier
from router.scoring.static_inputs import StaticInputs
from router.serving import models
from router.serving.keeper import Work
from router.serving.learned import Learned
from router.serving.parts import Model
from router.settings import EMBEDDED_BUNDLE, Settings

OBSERVED = 0.2
"""Share of the requests to learn from that the engine serves as it does by itself."""


async def learner(
    settings: Settings, served: Model, queue: FairQueue, observer: Observer, stack: AsyncExitStack
) -> Learner | None:
    """What learns from the first model's answers; None where nothing does. Raises OutcomeFileError, SettingsError."""
    if settings.learn == "off":
        return None
    if not served.served.climbs:
        effect = "nothing is learned: the engine continues no token ids, or its thoughts cannot be cut as it cuts them"
        structlog.get_logger().warning("learning without steps", model=served.served.model, effect=effect)
    # In a thread: another process may hold the file.
    journal = await asyncio.to_thread(Journal, settings.learn_folder, observer)
    stack.push_async_callback(journal.close)
    secret = settings.cache_secret.get_secret_value().encode() or store.secret(settings.learn_folder)
    share = OBSERVED if settings.learn_share is None else settings.learn_share
    ladder = models.learned_ladder(settings)
    course = Course(served.served.model, ladder, share, settings.max_loss, settings.learn_reports)
    names = PromptHasher(secret, settings.log_prompts)
    # Those of the bundle that ships, so that they stay the same whatever is promoted.
    extract = await asyncio.to_thread(lambda: StaticInputs(manifest.load(EMBEDDED_BUNDLE)))
    quietly = QuietMoments(lambda: queue.under_way + queue.queued)
    examiner = Examiner(settings.learn_answers, judge(settings, stack), extract, names, quietly, observer)
    learner = Learner(course, TokenBucket(settings.learn_tokens), examiner, journal, observer)
    stack.push_async_callback(learner.close)
    return learner


def judge(settings: Settings, stack: AsyncExitStack) -> Judge | None:
    """Who judges answers that differ; None where nobody does. Raises SettingsError."""
    if (verified := verifier(settings, stack)) is not None:
        return ByVerifier(verified)
    if not settings.learn_judge_url:
        return None
    from router.learning.model_judge import ByModel

    key = settings.learn_judge_key.get_secret_value()
    return ByModel(settings.learn_judge_url, settings.learn_judge_model, key, stack)


def verifier(settings: Settings, stack: AsyncExitStack) -> Verifier | None:
    """The operator's verifier; None where there is none."""
    if not settings.verifier_url:
        return None
    from router.outcomes.verifiers import HttpVerifier

    http = HttpVerifier(settings.verifier_url, settings.backend_timeout)
    stack.push_async_callback(http.close)
    return http


def auditor(settings: Settings, ledger: Ledger, observer: Observer, stack: AsyncExitStack) -> Auditor | None:
    """The auditor of certificates; None where audits are off."""
    if not settings.audit:
        return None
    # As what is learned was compared: a difference that is none there must not refute it.
    judged = verifier(settings, stack) or Agreement("text" if settings.learn == "off" else settings.learn_answers)
    auditor = Auditor(settings.audit, TokenBucket(settings.audit_tokens), judged, ledger, observer)
    stack.push_async_callback(auditor.close)
    return auditor


def traffic(settings: Settings, stack: AsyncExitStack, background: dict[str, Work]) -> list[Observer]:
    """What counts what is served, where the service learns."""
    if settings.learn == "off":
        return []
    counting = Traffic(settings.learn_folder, settings.learn)
    stack.push_async_callback(counting.close)
    background["count traffic"] = counting.keep
    return [counting]


def learned(settings: Settings, background: dict[str, Work]) -> Learned:
    """How far learning has come."""
    found = Learned(None if settings.learn == "off" else settings.learn_folder, settings.learn)
    if settings.learn != "off":
        background["read what was learned"] = found.follow
    return found
