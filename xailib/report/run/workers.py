"""A process that does jobs for another one: a line of JSON in, a line of JSON out.

It has the number of threads and the GPU that its environment says from its first import on. What
a job prints goes to the job's own log. It ends when the process that started it does.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from xailib.report.run.job import Result, log_of, run_packed


class WorkerDiedError(Exception):
    """The process that was doing a job ended: killed, out of memory, crashed."""


class Worker:
    """A process that does one job at a time, started with its first one and again if it dies.

    Parameters
    ----------
    environment : mapping
        What is set for it besides this process's own environment.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's number while there is one."""
        return None if self._process is None else self._process.pid

    def run(self, spec: Mapping[str, Any]) -> Result:
        """Do a job, see `xailib.report.run.job.packed`.

        Raises
        ------
        WorkerDiedError
            If the process ends before the job does.
        """
        process = self._started()
        to, back = process.stdin, process.stdout
        answer = ""
        with suppress(OSError, ValueError):  # the pipe's other end, or the pipe, has gone
            print(json.dumps(spec), file=to, flush=True)
            answer = back.readline() if back else ""
        if not answer.endswith("\n"):
            raise WorkerDiedError(f"its process ended ({_ending(process)})")
        return Result(**json.loads(answer))

    def _started(self) -> "subprocess.Popen[str]":
        if self._closed:
            raise WorkerDiedError("the pool was closed")
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "xailib.report.run.workers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **self._environment},
                start_new_session=True,  # an interrupt in the terminal is for the client
            )
        return self._process

    def close(self) -> None:
        """Kill the process, whatever it does; its notebook's kernel notices and ends too."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    if pipe:
                        pipe.close()


def _ending(process: "subprocess.Popen[str]") -> str:
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        return "it does not answer"
    return f"by signal {-code}" if code < 0 else f"with code {code}"


def main() -> None:
    """Answer the jobs that come in until there is nobody left to send any."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what anything prints is no answer
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin, jobs), daemon=True).start()
    while True:
        spec = json.loads(jobs.get())
        log = log_of(spec)
        with _printing_to(log):
            result = run_packed(spec)
        print(json.dumps(asdict(result)), file=answers, flush=True)


def _listen(source: IO[str], jobs: "queue.Queue[str]") -> None:
    for line in source:
        jobs.put(line)
    os._exit(1)  # whoever sent jobs is gone, and so is the need for the one in hand


@contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Send what this process and its children print to the end of a file."""
    with suppress(OSError):  # the job itself says what is wrong with its folder
        log.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(1), os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in enumerate(kept, start=1):
            os.dup2(saved, number)
            os.close(saved)


if __name__ == "__main__":
    main()
