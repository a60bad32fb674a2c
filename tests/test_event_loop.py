"""The background event loop: results, errors, Ctrl-C, and callers that already run a loop."""

import asyncio
import signal
import threading

import pytest

from ureca_lib.event_loop import background_loop, run_coroutine


async def _loop_and(value):
    await asyncio.sleep(0)
    return asyncio.get_running_loop(), value


def test_every_call_runs_in_the_same_loop_from_any_thread():
    results = [run_coroutine(_loop_and(1))]
    thread = threading.Thread(target=lambda: results.append(run_coroutine(_loop_and(2))))
    thread.start()
    thread.join()
    assert [value for _, value in results] == [1, 2]
    assert {loop for loop, _ in results} == {background_loop()}


def test_it_works_where_a_loop_already_runs():
    async def cell():
        return run_coroutine(_loop_and(3))[1]

    assert asyncio.run(cell()) == 3


def test_an_error_of_the_coroutine_is_raised():
    async def fails():
        raise ValueError("of the coroutine")

    with pytest.raises(ValueError, match="of the coroutine"):
        run_coroutine(fails())


def test_from_the_loop_itself_it_is_refused_instead_of_waiting_for_ever():
    async def inside():
        return run_coroutine(_loop_and(4))

    with pytest.raises(RuntimeError, match="await the coroutine"):
        run_coroutine(inside())


def test_ctrl_c_cancels_the_coroutine_and_waits_for_its_cleanup():
    started, cleaned = threading.Event(), []

    async def work():
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(True)

    def interrupt():
        started.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_coroutine(work())
    assert cleaned == [True]
