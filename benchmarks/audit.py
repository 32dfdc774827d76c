"""Run pip-audit, and say in one line if its service could not be asked.

`make audit` gives the whole command. What pip-audit finds it prints as a table; where it has no
answer, from the network or from the service, it ends with a traceback and the same exit code.
"""

import re
import subprocess
import sys

UNASKED = 2


def last_line(text: str) -> str:
    """Return the last line of an error that says something, without the log's own prefix."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not re.match(r"(ERROR:\S+:)?Tip:", line)]
    return re.sub(r"^ERROR:\S+?:", "", told[-1])[:300] if told else "it said nothing"


def main(command: list[str]) -> int:
    """Run the command; return 0 if nothing is known, 1 if something is, 2 if nobody could say."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  ours
    if done.returncode and not done.stdout.strip():
        print(
            f"audit: nothing was checked, pip-audit could not ask its service: "
            f"{last_line(done.stderr)}; it needs the network",
            file=sys.stderr,
        )
        return UNASKED
    print(done.stdout, done.stderr, sep="", end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
