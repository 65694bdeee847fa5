"""So many pictures wait as the model gets through in time; the rest is told when to come again."""

import time
from contextlib import ExitStack

import pytest

from vlm_serving.admission import Admission
from vlm_serving.config import ServingConfig
from vlm_serving.errors import OverloadedError


def admission(**settings: object) -> Admission:
    return Admission(ServingConfig(max_batch_size=4, max_pictures=32, max_waiting_pictures=100, **settings))


def test_a_slow_model_has_two_batches_waiting_and_a_quick_one_what_it_gets_through() -> None:
    one = admission(max_wait_s=0.5)
    one.pictures_per_s = 3.0
    assert one.limit == 8
    one.pictures_per_s = 60.0
    assert one.limit == 30
    one.pictures_per_s = 10_000.0
    assert one.limit == 100
    assert admission(max_wait_s=0).limit == 100


def test_as_many_requests_as_the_replicas_have_and_a_few_that_wait() -> None:
    one = admission(max_ongoing_requests=2, max_replicas=3, max_queued_requests=1)
    with ExitStack() as held:
        for _ in range(7):
            held.enter_context(one.place())
        with pytest.raises(OverloadedError, match=r"7 requests are in work; the limit is 7 at present"), one.place():
            pytest.fail("one too many was let in")
    assert one.requests == 0
    with one.place(), one.place():
        assert one.requests == 2


def test_any_number_of_requests_where_the_queue_has_no_end() -> None:
    one = admission(max_queued_requests=-1)
    with ExitStack() as held:
        for _ in range(1000):
            held.enter_context(one.place())


def test_a_request_has_no_place_where_no_picture_has_one() -> None:
    one = admission()
    with one.admitted(32), pytest.raises(OverloadedError, match=r"32 pictures are in work"), one.place():
        pytest.fail("it was let in")
    assert one.requests == 0


def test_a_full_request_is_let_in_when_nobody_waits() -> None:
    one = admission()
    with one.admitted(32):
        assert one.waiting == 32
        with pytest.raises(OverloadedError, match=r"32 pictures are in work; the limit is 8 at present"):
            one.require_room()
    assert one.waiting == 0
    one.require_room()


def test_the_rate_is_what_was_in_work_by_the_time_it_took() -> None:
    one = admission()
    with one.admitted(6):
        time.sleep(0.05)
    assert 60 < one.pictures_per_s <= 120
    seen = one.pictures_per_s
    with pytest.raises(ZeroDivisionError), one.admitted(5):
        _ = 1 / 0
    assert (one.waiting, one.pictures_per_s) == (0, seen)


def test_who_is_refused_is_told_when_there_will_be_room() -> None:
    one = admission(max_wait_s=0.5)
    one.waiting, one.pictures_per_s = 40, 9.0
    with pytest.raises(OverloadedError, match="Try again in 5 s") as caught:
        one.require_room()
    assert caught.value.retry_after_s == 5
