"""A limit for environments that hang."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import pytest
from helpers import env_spec, rollout_spec, weights_for

from spark_rl.envs.carry import plan
from spark_rl.errors import RunError
from spark_rl.rollout import run
from spark_rl.rollout.deadline import deadline
from spark_rl.rollout.spec import GroupTask


def hang(seconds: float) -> None:
    with deadline(seconds, "here") as arm:
        arm()
        time.sleep(5)


def test_too_long_is_an_error_that_says_where() -> None:
    message = r"here: got no answer for 0.05 s; wanted a step within the deadline; .*deadline_s"
    with pytest.raises(RunError, match=message):
        hang(0.05)


def test_every_call_starts_the_count_again() -> None:
    with deadline(0.2, "here") as arm:
        for _ in range(4):
            arm()
            time.sleep(0.1)


def test_nothing_is_left_behind() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with deadline(0.05, "here") as arm:
        arm()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    time.sleep(0.1)


def hang_twice(seconds: float) -> None:
    with deadline(seconds, "here") as arm:
        arm()
        with suppress(RunError):
            time.sleep(5)
        time.sleep(5)


def test_somebody_who_swallows_the_error_gets_it_again() -> None:
    with pytest.raises(RunError):
        hang_twice(0.05)


def test_outside_the_main_thread_there_is_no_limit() -> None:
    done = []

    def work() -> None:
        with deadline(0.01, "here") as arm:
            arm()
            time.sleep(0.05)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize("deaf", [False, True])
def test_an_environment_that_hangs_ends_its_task(deaf: bool, tmp_path: object) -> None:
    found = plan(env_spec("toys:Faulty", fault=""), carry="cut")
    spec = rollout_spec(str(tmp_path), found, deadline_s=0.15)
    fields = {name: getattr(spec, name) for name in spec.__slots__}
    hanging = type(spec)(**fields | {"env": env_spec("toys:Faulty", fault="hang", deaf=deaf)})
    began = time.perf_counter()
    with pytest.raises(RunError, match=r"no answer for 0.15 s"):
        run.run_group(hanging, GroupTask(iteration=0, group=0, policy_version=0), weights_for(spec.policy))
    assert time.perf_counter() - began < 3
