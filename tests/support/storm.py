"""A load test of the web page: many concurrent clients of every kind.

Run it with `python -m tests.support.storm --clients 100`.

Loopback only. Prints the results; exit code 1 if the server crashed, grew, or answered
unexpectedly.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from PIL import Image

from tests.support import demo_server
from tests.support.makers import noise

LIMITS = {"queue": 4, "upload": 200_000, "pixels": 600_000, "grace": 0.5, "keep_bytes": 500_000}
LIMITS |= {"per_address": 100}  # all clients share one address
# Limits of the growth of the process and of the size of the server's folder, which has a file for
# every place in the queue, the retained results, and the results of the last half second.
GROWTH_MIB, FOLDER_MIB = 60, 8
REFUSALS = {400, 403, 404, 413, 503}


def _resident_mib() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / 2**20


def _image(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(side, side, 3)).save(file, "PNG")
    return file.getvalue()


def storm(folder: Path, *, clients: int, rounds: int, seed: int) -> dict:
    """Runs `clients` threads of `rounds` random actions each; returns the counts of outcomes."""
    good, broken = _image(80), _image(40)[:500]
    counts: Counter = Counter()
    unexpected: list[str] = []
    most_bytes = 0

    def send(page, content: bytes, **options) -> None:
        for _ in range(8):
            status, answer = page.send(content, **options)
            if status != 503:
                break
            counts["refused"] += 1
            time.sleep(0.1)
        if status == 201:
            counts[page.events(answer["id"])[-1]["state"]] += 1
        elif status in REFUSALS:
            counts["refused"] += 1
        else:
            unexpected.append(f"{status} {answer}")

    def hang_up(page) -> None:
        connection = page.connect()
        connection.putrequest("POST", "/jobs?name=a.png&model=built-in&scale=4")
        connection.putheader("Content-Length", "5000")
        connection.endheaders()
        connection.send(good[:1000])
        connection.close()
        counts["hung up"] += 1

    def leave(page) -> None:
        status, answer = page.send(good)
        if status == 201:
            with demo_server.listening(page, answer["id"]) as events:
                next(events)
        counts["left"] += 1

    def look(page) -> None:
        status, *_ = page.request("GET", "/jobs/none/result")
        counts["refused"] += status in REFUSALS

    def client(page, rng: random.Random) -> None:
        nonlocal most_bytes
        for _ in range(rounds):
            action = rng.choice(
                [
                    lambda: send(page, good),
                    lambda: send(page, good, scale=rng.choice([2, 3, 4]), format="jpg"),
                    lambda: send(page, broken),
                    lambda: send(page, b"x" * 300_000),
                    lambda: send(page, good, model="../x"),
                    lambda: hang_up(page),
                    lambda: leave(page),
                    lambda: look(page),
                ]
            )
            try:
                action()
            except ConnectionError:  # refused while sending too much
                counts["refused"] += 1
            except Exception as error:
                unexpected.append(repr(error))
            most_bytes = max(most_bytes, _bytes_in(folder))

    with demo_server.page(folder, **LIMITS) as page:
        for _ in range(3):
            page.upscale(good)
        before = _resident_mib()
        threads = [
            threading.Thread(target=client, args=(page, random.Random(f"{seed} {i}")))
            for i in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alive = page.request("GET", "/")[0] == 200
        last = page.upscale(good)["state"]
        grown = _resident_mib() - before
    return {
        **counts,
        "unexpected": unexpected + ([] if last == "done" else [last]),
        "alive": alive,
        "growth_mib": round(grown, 1),
        "most_mib": round(most_bytes / 2**20, 1),
    }


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        report = storm(Path(folder), **options)
    print(json.dumps(report, indent=2))
    bounded = report["growth_mib"] < GROWTH_MIB and report["most_mib"] < FOLDER_MIB
    sys.exit(bool(report["unexpected"]) or not report["alive"] or not bounded)
