"""Images within requests: a bound of their own, and memory for few large messages at a time."""

import grpc

from router._gen import budget_router_pb2 as pb
from router.admission.tenants import Key, Tenant, Tenants, digest
from router.bundle.manifest import Bundle
from router.domain import ReasoningDelta
from router.requests.limits import MAX_IMAGE_BYTES, MAX_MESSAGE_BYTES
from tests.rpc.conftest import PATIENCE, Service, bearer, decide, generate, refusal, serving, user
from tests.support.fakes import FakeBackend, Hang, router_of, until

MIB = 1 << 20
WITH_IMAGES = MAX_MESSAGE_BYTES + MAX_IMAGE_BYTES
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def shown(size: int, text: str = "What is this?", in_parts: bool = False) -> list[pb.Message]:
    """A user's turn with an image of so many bytes."""
    url = "data:image/png;base64,"
    url += "A" * (size - len(url))
    if in_parts:
        parts = [pb.ContentPart(image_url=url), pb.ContentPart(text=text)]
        return [pb.Message(role=pb.ROLE_USER, parts=parts)]
    return [pb.Message(role=pb.ROLE_USER, content=text, image_urls=[url])]


async def test_an_image_longer_than_the_texts_may_be_is_taken(fake: Service, backend: FakeBackend) -> None:
    for in_parts in (False, True):
        messages = shown(3 * MIB // 2, in_parts=in_parts)
        assert (await fake.routing.Decide(decide(messages=messages), timeout=PATIENCE)).decision.rung
        events = [event async for event in fake.routing.Generate(generate(messages=messages), timeout=PATIENCE)]
        assert events[-1].completion
        [image] = backend.asked[-1].prompt.messages[0].images
        assert len(image) == 3 * MIB // 2


async def test_texts_keep_their_bound_beside_an_image(fake: Service) -> None:
    for in_parts in (False, True):
        messages = shown(MIB, text="x" * (MIB + 1), in_parts=in_parts)
        assert (await refusal(fake.routing.Decide(decide(messages=messages)))).fields == ["messages"]


async def test_where_images_are_taken_messages_may_be_so_much_larger(bundle: Bundle) -> None:
    async with serving(router_of(), bundle, max_bytes=WITH_IMAGES) as service:
        taken = shown(MAX_IMAGE_BYTES)
        assert (await service.routing.Decide(decide(messages=taken), timeout=PATIENCE)).decision.rung
        seen = await refusal(service.routing.Decide(decide(messages=shown(MAX_IMAGE_BYTES + 1))))
        assert (seen.code, seen.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["messages"])
        seen = await refusal(service.routing.Decide(decide("x" * (MAX_IMAGE_BYTES + MIB))))
        assert (seen.code, seen.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["messages"])
        assert (await refusal(service.routing.Decide(decide(messages=shown(WITH_IMAGES))))).code is EXHAUSTED


async def test_a_large_message_without_a_key_is_refused_as_any_other(bundle: Bundle) -> None:
    closed = Tenants({"one": Tenant(keys=(Key(sha256=digest("a key")),))})
    router = router_of(tenants=("one",))
    async with serving(router, bundle, tenants=closed, max_bytes=WITH_IMAGES) as service:
        messages = shown(MAX_IMAGE_BYTES)
        seen = await refusal(service.routing.Decide(decide(messages=messages), timeout=PATIENCE))
        assert seen.code is grpc.StatusCode.UNAUTHENTICATED
        assert (await service.routing.Decide(decide(messages=messages), timeout=PATIENCE, **bearer("a key"))).decision


async def test_few_large_messages_are_under_way_at_once(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    large = generate(messages=shown(5 * MIB))
    async with serving(router_of(backend=backend), bundle, max_bytes=WITH_IMAGES, max_large_bytes=16 * MIB) as service:
        call = service.routing.Generate(large)
        await call.read()
        seen = await refusal(service.routing.Generate(large))
        assert (seen.code, seen.retry_seconds) == (EXHAUSTED, 1) and "images" in seen.message
        small = service.routing.Generate(generate(messages=[*user(), *shown(MIB)]))
        assert await small.read()
        for one in (call, small):
            one.cancel()
        await until(lambda: backend.open == 0)
        again = service.routing.Generate(large)
        assert await again.read()
        again.cancel()
        await until(lambda: backend.open == 0)


async def test_by_default_no_message_is_larger_than_texts_need(fake: Service) -> None:
    assert (await refusal(fake.routing.Decide(decide(messages=shown(MAX_MESSAGE_BYTES + MIB))))).code is EXHAUSTED
