"""A process of writers: takes commands as JSON lines, answers each with one.

    worker.py SYSTEM

Every command has a slot; the commands of one slot follow each other, slots run side by side.
"""

import json
import os
import random
import sys
import threading
import time
from queue import Queue

from systems import ALL

ATTEMPTS = 10  # how often a writer that is told of an error runs its batch again


class Writer:
    """One writer: begins, finishes, and does it all again after an error."""

    def __init__(self, system):
        self.system, self.home, self.state, self.errors, self.path, self.begun = system, None, None, [], None, None

    def at(self, home):
        return self.system(home)

    def create(self, home):
        self.at(home).create()
        return {}

    def rows(self, home):
        return {"ids": self.at(home).rows()}

    def begin(self, home, path):
        self.home, self.path, self.errors, self.state = home, path, [], None
        try:
            self.state = self.at(home).begin(path)
        except Exception as error:
            self.note(error)
        return {"errors": self.errors}

    def finish(self):
        table = self.at(self.home)
        if self.state is not None:
            try:
                table.finish(self.state)
                return {"ok": True, "errors": self.errors}
            except Exception as error:
                self.note(error)
                table.forget(self.state)
        return self.again()

    def write(self, home, path):
        self.home, self.path, self.errors = home, path, []
        start = time.monotonic()
        return self.again() | {"seconds": time.monotonic() - start}

    def again(self):
        while len(self.errors) < ATTEMPTS:
            table = self.at(self.home)
            try:
                if self.errors:
                    time.sleep(random.uniform(0, 0.02 * 2 ** len(self.errors)))
                table.write(self.path)
                return {"ok": True, "errors": self.errors}
            except Exception as error:
                self.note(error)
        return {"ok": False, "errors": self.errors}

    def note(self, error):
        text = " ".join(str(error).split())
        self.errors.append(f"{type(error).__name__}: {text[:300]}")


def main():
    system = ALL[sys.argv[1]]
    # Whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lock = threading.Lock()

    def answer(what):
        with lock:
            answers.write(json.dumps(what) + "\n")
            answers.flush()

    def serve(slot, queue):
        writer = Writer(system)
        while True:
            command = queue.get()
            try:
                answer({"slot": slot} | getattr(writer, command.pop("do"))(**command))
            except Exception as error:
                answer({"slot": slot, "broken": f"{type(error).__name__}: {error}"})

    system.load()
    answer({"slot": 0, "ready": True})
    slots = {}
    for line in sys.stdin:
        command = json.loads(line)
        slot = command.pop("slot")
        if slot not in slots:
            slots[slot] = Queue()
            threading.Thread(target=serve, args=(slot, slots[slot]), daemon=True).start()
        slots[slot].put(command)
    os._exit(0)


if __name__ == "__main__":
    main()
