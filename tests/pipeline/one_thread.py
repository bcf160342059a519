"""An encode in this process whose results do not depend on the number of cores."""

from dataclasses import replace

from vidlat.pipeline.executor import InProcessExecutor


class OneThread(InProcessExecutor):
    """Runs every task on one thread: their number changes the last bit of a sum. jobs: what was submitted."""

    def __init__(self):
        super().__init__()
        self.jobs = []

    def encode(self, task, videos, job, most_stacks):
        self.jobs.append(job)
        super().encode(task, videos, replace(job, num_threads=1), most_stacks)
