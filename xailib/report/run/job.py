"""Jobs: the pieces that running a profile consists of, each done once, wherever it is done.

A job writes into a folder of its own, below that of its task, and what it has written says
whether it has to be done again (`xailib.report.run.staleness`): nothing else remembers it. So a
run that was killed is resumed, and what somebody else has finished meanwhile is not done twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from xailib.images.packaged import packaged
from xailib.report.params.profiles import Profile, upstream

LOG, COST, LOCK = "log.txt", "cost.json", ".job.lock"
# Which kind of job does a part of a task.
SHARDS = MappingProxyType({"1_clip_dissect": "record", "2_lime": "explain", "3_cam": "explain"})


@dataclass(frozen=True)
class Job:
    """One piece of a profile's run.

    Attributes
    ----------
    name : str
        Unique in its plan: ``2_lime``, ``2_lime.0003``, ``2_lime.table``.
    task : str
        The notebook that it belongs to.
    kind : {"notebook", "explain", "table", "record", "label"}
        Execute the notebook; explain some of its images, and gather the rows of all of these; or
        record some of its probe images, and label units from all of these.
    needs : tuple of str
        The jobs that have to be finished before.
    photographs : tuple of (id, name)
        For ``"explain"`` and ``"record"``: what `xailib.images.load.load_images` reads, and the ids
        they get.
    """

    name: str
    task: str
    kind: str = "notebook"
    needs: tuple[str, ...] = ()
    photographs: tuple[tuple[str, str], ...] = ()

    def folder(self, profile: Profile) -> Path:
        """Return where its result, log and cost lie."""
        place = profile.folder(self.task)
        return place if self.kind == "notebook" else place / "jobs" / self.name

    def reads(self) -> Iterator["Job"]:
        """Yield the jobs whose results it reads, without their images."""
        names = dict.fromkeys(self.needs)
        if self.kind == "notebook":
            names |= dict.fromkeys(upstream(self.task).values())
        for name in names:
            task = name.partition(".")[0]
            yield Job(name, task, "notebook" if name == task else SHARDS[task])


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes
    ----------
    task : str
        The job's name.
    state : {"done", "reused", "failed", "skipped"}
        Reused is what was finished before, or by somebody else meanwhile.
    seconds : float
        Without the time in which it waited for its turn.
    message : str
        Why it failed, or which images a notebook could not use, in one line.
    """

    task: str
    state: str
    seconds: float = 0.0
    message: str = ""


def path_of(name: str) -> Path:
    """Return the file behind one of a job's images: a packaged name, or a path."""
    known = packaged()
    return known[name].path if name in known else Path(name)
