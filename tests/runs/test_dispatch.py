"""Jobs over workers that die, fail or never come: every job is done once, and a run that cannot go on says why."""

import bisect
from collections import defaultdict

import pytest

from bench.errors import EngineError, ModelError
from bench.runs.engines.base import Job
from bench.runs.engines.dispatch import MOST_DEATHS, Event, dispatch
from bench.runs.engines.processes import ProcessEngine
from tests.support import killed_run
from tests.support.spread_work import Loader, Waiting, single_jobs

JOBS = [Job(method="a", sigma=0.5, indices=(2 * i, 2 * i + 1)) for i in range(20)]


class Simulated:
    """Workers in simulated time: `seconds(worker, job)`; one whose number is in `doomed` dies in its first job."""

    def __init__(self, seconds=lambda worker, job: 1.0, doomed=(), stillborn=()):
        self.seconds, self.doomed, self.stillborn = seconds, set(doomed), set(stillborn)
        self.now, self.started, self.events, self.is_closed = 0.0, 0, [], False
        self.took = defaultdict(list)

    def start(self, load):
        worker, self.started = self.started, self.started + 1
        if worker in self.stillborn:
            self.events.append((self.now + 1, Event(worker=worker, death="stillborn")))
        else:
            self.events.append((self.now, Event(worker=worker)))

    def submit(self, worker, job):
        took = self.seconds(worker, job)
        self.took[job].append(took)
        event = Event(worker=worker, records=list(job.indices))
        if worker in self.doomed:
            event = Event(worker=worker, death="killed")
        self.events.append((self.now + took, event))

    def wait(self, seconds):
        self.events.sort(key=lambda pair: -pair[0])
        if not self.events or self.events[-1][0] > self.now + seconds:
            self.now += seconds
            return None
        at, event = self.events.pop()
        self.now = max(self.now, at)
        return event

    def close(self):
        self.is_closed = True


def done_by(pool, workers, jobs=JOBS):
    results = dispatch(pool, workers, None, iter(jobs), clock=lambda: pool.now)
    return sorted(index for records in results for index in records)


@pytest.mark.parametrize("workers", [1, 3, 50])
@pytest.mark.parametrize("doomed", [(), (0,), (0, 1, 2, 3)])
def test_every_job_is_done_once_whoever_dies(workers, doomed):
    pool = Simulated(seconds=lambda worker, job: 1 + worker % 3, doomed=doomed[: 2 * workers])
    assert done_by(pool, workers) == list(range(40))
    assert pool.is_closed


def test_jobs_are_taken_only_when_a_worker_is_free():
    taken = []
    results = dispatch(Simulated(), 2, None, (taken.append(job) or job for job in JOBS))
    next(results)
    assert len(taken) == 2


def test_a_job_that_kills_its_workers_ends_the_run():
    with pytest.raises(
        EngineError, match=r"images 0, 1 of a at sigma 0.5 cost 3 workers \(killed\): give each more"
    ):
        done_by(Simulated(doomed=range(MOST_DEATHS)), 1)


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_that_die_before_they_are_ready_end_the_run(workers):
    most = MOST_DEATHS * workers
    with pytest.raises(
        EngineError, match=rf"{most} workers in a row died before they were ready \(stillborn\)"
    ):
        done_by(Simulated(stillborn=range(100)), workers)


def test_a_node_that_dies_with_the_workers_that_it_starts_costs_nothing():
    """Seven of eight workers die together; the eighth is amid its first job then, and others take a while to come."""
    pool = Simulated(seconds=lambda worker, job: 3.0, stillborn=range(7))
    start = pool.start

    def late(load):
        start(load)
        if pool.started > 8:
            pool.events[-1] = (pool.now + 5.0, pool.events[-1][1])

    pool.start = late
    assert done_by(pool, 8) == list(range(40))


def test_a_job_is_not_blamed_for_workers_that_had_died_before_it_came():
    """A node dies with five workers, four of them idle: the last job is given to each of these in vain."""
    pool, dead = Simulated(), []
    submit = pool.submit

    def to_the_dead(worker, job):
        submit(worker, job)
        if job is JOBS[-1] and worker < 5:
            at = pool.now + (0.0 if dead else 1.5)
            pool.events[-1] = (at, Event(worker=worker, death="node", has_begun=not dead))
            dead.append(worker)

    pool.submit = to_the_dead
    assert done_by(pool, 5) == list(range(40))
    assert sorted(dead) == [0, 1, 2, 3, 4]


def test_a_run_without_workers_does_not_wait_for_ever():
    pool = Simulated()
    pool.start = lambda load: None
    with pytest.raises(
        EngineError, match="no worker has started within 600 seconds: ask for fewer resources"
    ):
        done_by(pool, 4)
    assert pool.is_closed


def test_what_a_job_raises_ends_the_run_after_the_records_before_it():
    pool = Simulated()
    submit = pool.submit

    def failing(worker, job):
        submit(worker, job)
        if job is JOBS[3]:
            pool.events[-1] = (pool.now, Event(worker=worker, error=ModelError("wrong")))

    pool.submit = failing
    results = dispatch(pool, 1, None, iter(JOBS))
    assert [next(results) for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ModelError, match="wrong"):
        next(results)
    assert pool.is_closed


def test_nobody_waits_for_a_slow_workers_last_job():
    """Worker 0 takes 100 s for a job, the others 1 s; a job that is late is done by a free worker too."""
    pool = Simulated(seconds=lambda worker, job: 100.0 if worker == 0 else 1.0)
    assert done_by(pool, 4) == list(range(40))
    assert pool.now == 7.0  # 20 jobs by three workers; the slow one has begun one of them
    assert pool.is_closed


@pytest.mark.parametrize("attempt", [None, 0, 1])
def test_a_job_that_two_do_is_done_once_and_given_to_no_third(attempt):
    """The first two jobs are late with their first workers, and done again from 9 s on, the second one until 14 s.

    The first job's worker then ends at 10.5 s, after its copy, or one of the two dies while the other goes on.
    """
    pool = Simulated(seconds=lambda worker, job: 1.0)
    times = {JOBS[0]: (10.5, 1.0), JOBS[1]: (30.0, 5.0)}
    pool.seconds = lambda worker, job: times.get(job, (1.0, 1.0))[len(pool.took[job])]
    submit = pool.submit

    def one_dies(worker, job):
        submit(worker, job)
        if job is JOBS[0] and attempt == len(pool.took[job]) - 1:
            pool.events[-1] = (9.5, Event(worker=worker, death="killed"))

    pool.submit = one_dies
    assert done_by(pool, 4) == list(range(40))
    assert [len(pool.took[job]) for job in JOBS] == [2, 2] + 18 * [1]
    assert pool.now == 14.0


def test_an_even_pace_gives_no_job_to_two():
    pool = Simulated(seconds=lambda worker, job: 1.0 + job.indices[0] % 5 / 5)
    assert done_by(pool, 7) == list(range(40))
    assert {len(times) for times in pool.took.values()} == {1}


@pytest.mark.slow
@pytest.mark.parametrize(("methods", "least"), [("abcd", 0.97), ("a", 0.95)])
def test_a_thousand_workers_are_busy_on_fifty_thousand_images_with_stragglers_and_deaths(methods, least):
    """One worker in a hundred is eight times slower; one in fifty dies amid its first image and is replaced.

    Utilisation is the time of the jobs whose records count, over all workers' time until the last of them.
    """
    jobs = [Job(method=method, sigma=0.5, indices=(index,)) for method in methods for index in range(50_000)]

    def seconds(worker, job):
        return 10.0 if worker % 100 == 0 else 1.0 + (job.indices[0] * 7919 % 100) / 200

    pool = Simulated(seconds=seconds, doomed=range(5, 1000, 50))
    pool.events = _Heap()
    records = done_by(pool, 1000, jobs)
    assert records == sorted(index for job in jobs for index in job.indices)
    utilisation = sum(map(min, pool.took.values())) / (1000 * pool.now)
    print(
        f"{len(jobs)} jobs, {pool.started} workers: {pool.now:.1f} s simulated, utilisation {utilisation:.1%}"
    )
    assert utilisation > least


class _Heap(list):
    """Events kept in order as they come, so that a thousand workers need no sorting."""

    def append(self, pair):
        bisect.insort(self, pair, key=lambda one: -one[0])

    def sort(self, key):
        pass


def test_processes_give_the_records_of_one_process_though_one_is_killed_amid_an_image(tmp_path):
    results = ProcessEngine(workers=2).results(Loader(tmp_path), iter(JOBS[:5]))
    records = [record for records in results for record in records]
    assert sorted(record.index for record in records) == list(range(10))
    assert all(record == killed_run.certify("a", 0.5, record.index) for record in records)
    assert (tmp_path / "killed").exists()


def test_records_come_while_other_images_are_in_hand(tmp_path):
    results = ProcessEngine(workers=2).results(Waiting(tmp_path), iter(single_jobs(2, 0, 1)))
    assert [record.index for record in next(results) + next(results)] == [0, 1]
    (tmp_path / "go").touch()
    assert [record.index for records in results for record in records] == [2]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ours", ModelError), ("python", KeyError), ("local", RuntimeError), ("two", RuntimeError)],
)
def test_an_error_in_a_process_is_raised_here_with_its_place(tmp_path, name, kind):
    (tmp_path / "killed").touch()
    with pytest.raises(kind) as caught:
        list(ProcessEngine(workers=1).results(Loader(tmp_path, error=name), iter(JOBS[:5])))
    told = "".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "logits of shape (1, 1)" in told
    assert ("in certify" in told) == (name != "ours")


class ThreadCounter:
    """A loader whose arrival imports torch, as that of a run does; its records hold the number of threads."""

    def __setstate__(self, state):
        import torch  # noqa: F401

    def __getstate__(self):
        return {"sent": True}

    def __call__(self, method, sigma):
        import torch

        return lambda indices: [torch.get_num_threads()]


def test_a_process_computes_with_its_share_of_the_threads():
    results = ProcessEngine(workers=1, threads=3).results(ThreadCounter(), iter(JOBS[:1]))
    assert list(results) == [[3]]


def test_no_worker_is_started_where_nothing_is_left_to_do():
    pool = Simulated()
    assert list(dispatch(pool, 2, None, iter(()))) == []
    assert pool.events == []
