"""`python -m xailib.report.evidence STAGE`: the evidence run, resumed where it stopped."""

import argparse
import logging
from pathlib import Path

import torch

from xailib.report.evidence import kept, tables
from xailib.report.evidence.jobs import Worker, load_evidence
from xailib.report.evidence.scoring import score_stored

log = logging.getLogger("xailib.evidence")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(prog="xailib.report.evidence", description=__doc__)
    parser.add_argument(
        "stage",
        choices=["explain", "score", "compare", "keep"],
        help="make explanations; score them; compare with the kept tables; keep these instead",
    )
    parser.add_argument("--profile", type=Path, default=Path("params/evidence.yaml"))
    parser.add_argument("--photographs", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--out", type=Path, default=Path("results/evidence"))
    parser.add_argument("--weights", action="append", default=[], metavar="NETWORK=FILE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    weights = dict(pair.split("=", 1) for pair in given.weights)
    evidence = load_evidence(given.profile, given.photographs, weights)
    if given.stage in ("explain", "score"):
        worker = Worker(evidence, given.out, given.device)
        (worker.run if given.stage == "explain" else lambda: score_stored(worker))()
        return
    found = tables.collect(evidence, given.out)
    if given.stage == "keep":
        kept.save(found, tables.manifest_of(evidence, given.out, found), kept.folder())
        return
    log.info("\n%s", tables.compare(kept.load(), found).to_string(index=False))


if __name__ == "__main__":
    main()
