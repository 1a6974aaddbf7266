from __future__ import annotations

from collections import Counter, deque

from ingestd.messages import Priority
from ingestd.transport.amqp.turns import LOOK, Priorities, Tenants

QUEUES = {priority: priority.value for priority in Priority}


def test_of_ten_turns_six_are_high_three_normal_and_one_low_and_none_waits_for_long() -> None:
    priorities = Priorities(QUEUES)

    first = [next(iter(priorities.order())) for _ in range(10)]

    assert Counter(first) == {"high": 6, "normal": 3, "low": 1}
    assert "low" in first
    assert "high" in first[:2]


def test_whoever_has_the_turn_the_others_are_asked_after_it_the_most_urgent_first() -> None:
    priorities = Priorities(QUEUES)

    for _ in range(10):
        first, *others = priorities.order()
        assert others == [queue for queue in ("high", "normal", "low") if queue != first]


def test_what_is_set_back_takes_no_turn() -> None:
    with_looks, without = Priorities(QUEUES), Priorities(QUEUES)
    seen = []
    for _ in range(10):
        for _ in range(3):
            next(iter(with_looks.order()))
            with_looks.again()
        seen.append(next(iter(with_looks.order())))

    assert [next(iter(without.order())) for _ in range(10)] == seen


def served(tenants: Tenants, queue: deque[str]) -> str:
    """What a worker takes next from a queue: what is set back goes to its end."""
    while True:
        tenant = queue.popleft()
        if tenants.takes(tenant.partition("-")[0], left=len(queue)):
            return tenant
        queue.append(tenant)


async def test_one_request_does_not_wait_for_a_thousand_of_another_tenant() -> None:
    tenants = Tenants()
    queue = deque([*(f"many-{number}" for number in range(LOOK)), "one-0"])

    taken = [served(tenants, queue) for _ in range(2)]

    assert taken == ["many-0", "one-0"]


async def test_tenants_take_turns_as_long_as_both_wait() -> None:
    tenants = Tenants()
    queue = deque([*(f"a-{number}" for number in range(50)), *(f"b-{number}" for number in range(5))])

    taken = [served(tenants, queue).partition("-")[0] for _ in range(12)]

    assert taken == [*"abababababaa"]


async def test_the_requests_of_a_tenant_who_is_alone_are_taken_in_their_order() -> None:
    tenants = Tenants()
    queue = deque(f"a-{number}" for number in range(50))

    assert [served(tenants, queue) for _ in range(50)] == [f"a-{number}" for number in range(50)]


async def test_every_request_is_taken_once() -> None:
    tenants = Tenants()
    queue = deque(f"{'abc'[number % 7 % 3]}-{number}" for number in range(300))
    all_ = set(queue)

    assert {served(tenants, queue) for _ in range(300)} == all_
