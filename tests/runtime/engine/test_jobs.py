"""`Jobs` against a model of the way of a job: waiting, running, done, taken, given."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flowrun.runtime.engine.background import Job, Jobs, JobState
from flowrun.runtime.task import Live, TaskConfig

WAITING, RUNNING, DONE, TAKEN, GIVEN = JobState


class Config(TaskConfig):
    gain: Live[int] = 0


class Modelled(RuleBasedStateMachine):
    """The model: (cycle, state, restarts) of each job in flight, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.jobs = Jobs(self.config)
        self.model: list[tuple[int, JobState, bool]] = []
        self.made: dict[int, Job] = {}
        self.next = 0
        self.replaced = 0
        self.closed = False
        self.frozen = None

    def has(self, state):
        return any(it[1] is state for it in self.model)

    def set_state(self, at, state):
        cycle, _, restarts = self.model[at]
        self.model[at] = cycle, state, restarts

    @rule(restarts=st.booleans())
    def submit(self, restarts):
        job = Job(self.next, 0, self.config, {}, restarts=restarts)
        self.made[self.next] = job
        replaced = self.jobs.submit(job)
        expected = None
        if not self.closed:
            if self.model and self.model[-1][1] is WAITING:
                expected, _, due = self.model.pop()
                restarts = restarts or due
                self.replaced += 1
            self.model.append((self.next, WAITING, restarts))
        assert (replaced and replaced.cycle) == expected
        self.next += 1

    @precondition(lambda self: self.has(WAITING) and not self.has(RUNNING))
    @rule()
    def begin(self):
        job = self.jobs.begin()
        assert job is self.made[self.model[-1][0]]
        self.set_state(-1, RUNNING)

    @precondition(lambda self: self.closed)
    @rule()
    def begin_when_closed(self):
        assert self.jobs.begin() is None

    @precondition(lambda self: self.has(RUNNING))
    @rule(refused=st.booleans())
    def finish(self, refused):
        [at] = [at for at, it in enumerate(self.model) if it[1] is RUNNING]
        job = self.made[self.model[at][0]]
        job.frozen = {"state": job.cycle}
        if refused:
            job.accepted = Config(gain=-1)
        self.jobs.finish(job)
        self.set_state(at, DONE)

    @rule()
    def take(self):
        job = self.jobs.take()
        if self.model and self.model[0][1] is DONE:
            assert job is self.made[self.model[0][0]]
            self.set_state(0, TAKEN)
        else:
            assert job is None

    @rule()
    def give(self):
        job = self.jobs.give()
        if not self.model or self.model[0][1] is not TAKEN:
            assert job is None
            return
        cycle, _, _ = self.model.pop(0)
        assert job is self.made[cycle]
        assert job.state is GIVEN
        self.frozen = job.frozen
        if job.accepted is not None and job.config.gain == self.config.gain:
            self.config = job.accepted

    @precondition(lambda self: not self.has(TAKEN))
    @rule()
    def put_taken(self):
        job = self.made[self.next] = Job(self.next, 0, self.config, {})
        self.jobs.put_taken(job)
        self.model.insert(0, (self.next, TAKEN, False))
        self.next += 1

    @rule(gain=st.integers(0, 2))
    def set_live(self, gain):
        self.config = self.jobs.config = Config(gain=gain)

    @precondition(lambda self: self.next > 5)
    @rule()
    def close(self):
        assert self.jobs.close() is self.has(RUNNING)
        self.closed = True
        self.model = [it for it in self.model if it[1] is not WAITING]

    @precondition(lambda self: self.next > 5)
    @rule()
    def clear(self):
        self.jobs.clear()
        self.model.clear()

    @invariant()
    def is_as_the_model(self):
        in_flight = [(job.cycle, job.state, job.restarts) for job in self.jobs.in_flight]
        assert in_flight == self.model
        assert self.jobs.busy is bool(self.model)
        assert self.jobs.working is (self.has(WAITING) or self.has(RUNNING))
        first = self.model[0][1] if self.model else None
        assert (self.jobs.has_done, self.jobs.has_taken) == (first is DONE, first is TAKEN)
        assert self.jobs.replaced == self.replaced
        assert self.jobs.frozen == self.frozen
        assert self.jobs.config is self.config


TestJobs = Modelled.TestCase
TestJobs.settings = settings(max_examples=100, stateful_step_count=40)
