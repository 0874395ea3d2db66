"""Jobs over workers that die, fail or never come: every job is done once, and a run that cannot go on says why."""

import bisect

import pytest

from bench.dispatch import MOST_DEATHS, Event, dispatch
from bench.engine import Job
from bench.errors import EngineError, ModelError
from bench.process_engine import ProcessEngine
from tests.bench import killed_run
from tests.bench.spread_work import Loader, Waiting, single_jobs

JOBS = [Job(method="a", sigma=0.5, indices=(2 * i, 2 * i + 1)) for i in range(20)]


class Simulated:
    """Workers in simulated time: `seconds(worker, job)`; one whose number is in `doomed` dies in its first job."""

    def __init__(self, seconds=lambda worker, job: 1.0, doomed=(), stillborn=()):
        self.seconds, self.doomed, self.stillborn = seconds, set(doomed), set(stillborn)
        self.now, self.started, self.events, self.busy, self.is_closed = 0.0, 0, [], 0.0, False

    def start(self, load):
        worker, self.started = self.started, self.started + 1
        if worker in self.stillborn:
            self.events.append((self.now + 1, Event(worker=worker, death="stillborn")))
        else:
            self.events.append((self.now, Event(worker=worker)))

    def submit(self, worker, job):
        took = self.seconds(worker, job)
        self.busy += took
        event = Event(worker=worker, records=list(job.indices))
        if worker in self.doomed:
            event = Event(worker=worker, death="killed")
        self.events.append((self.now + took, event))

    def wait(self, seconds):
        if not self.events:
            return None
        self.events.sort(key=lambda pair: -pair[0])
        self.now, event = self.events.pop()
        return event

    def close(self):
        self.is_closed = True


def done_by(pool, workers, jobs=JOBS):
    return sorted(index for records in dispatch(pool, workers, None, iter(jobs)) for index in records)


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
            at = pool.now + (0.0 if dead else 9.0)
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


@pytest.mark.slow
@pytest.mark.parametrize(("methods", "least"), [("abcd", 0.95), ("a", 0.85)])
def test_a_thousand_workers_are_busy_on_fifty_thousand_images_with_stragglers_and_deaths(methods, least):
    """One worker in a hundred is eight times slower; one in fifty dies amid its first image and is replaced.

    Utilisation is the time of the jobs that gave records, over all workers' time until the last of them. At the end
    all wait for the last images of slow workers, so that it grows with the length of the run: 50,000 images take
    1,000 workers a minute with one method.
    """
    jobs = [Job(method=method, sigma=0.5, indices=(index,)) for method in methods for index in range(50_000)]

    def seconds(worker, job):
        return 10.0 if worker % 100 == 0 else 1.0 + (job.indices[0] * 7919 % 100) / 200

    pool = Simulated(seconds=seconds, doomed=range(5, 1000, 50))
    pool.events = _Heap()
    records = done_by(pool, 1000, jobs)
    assert records == sorted(index for job in jobs for index in job.indices)
    lost = 20 * 1.5  # at most: each of the dead was amid a job
    utilisation = (pool.busy - lost) / (1000 * pool.now)
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
