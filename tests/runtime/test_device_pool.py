"""Jobs and makers: results in order, several at a time, and what fails is said."""

import threading

import pytest

from specdiff_jax.runtime.worker_pool import run_on_devices


def test_results_come_in_the_jobs_order_whoever_is_done_first():
    later = threading.Event()

    def make(job):
        if job == 0:
            assert later.wait(10)  # until the last job is done elsewhere
        if job == 5:
            later.set()
        return job * job

    jobs = [(k,) for k in range(6)]
    assert list(run_on_devices([make, make], jobs)) == [((k,), k * k) for k in range(6)]


def test_each_maker_has_one_job_at_a_time_and_all_have_some():
    together, busy = threading.Barrier(3, timeout=10), [0, 0, 0]

    def maker(index):
        def make(job):
            busy[index] += 1
            assert busy[index] == 1
            if job < 3:
                together.wait()  # passed only by three at once
            busy[index] -= 1
            return index

        return make

    makers = [maker(index) for index in range(3)]
    done = [index for _, index in run_on_devices(makers, [(k,) for k in range(9)])]
    assert sorted(done[:3]) == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2])
def test_what_fails_ends_it_and_the_jobs_behind_are_left_out(count):
    output = []

    def make(job):
        output.append(job)
        if job == 1:
            raise ValueError("out of notes")

    with pytest.raises(ValueError, match="out of notes"):
        list(run_on_devices([make] * count, [(k,) for k in range(1000)]))
    assert len(output) < 1000


def test_one_generator_makes_only_what_is_requested():
    output = []
    results = run_on_devices([output.append], [(k,) for k in range(5)])
    assert not output
    next(results)
    assert output == [0]
