"""What the Python programs share: where to connect, and the steps."""

import os
import sys
import time
import traceback

BASE = int(os.environ["BASE"])  # the first key of this driver's own
NAME = os.environ["NAME"]
THINGS = "things_" + NAME  # this driver's own table, on one shard
WRONG_ROOT = os.environ["WRONG_ROOT"]
BALANCER_PORT = os.environ["BALANCER_PORT"]

_failed = []


def step(name):
    """Runs the function at once and says how it went. The steps after a failed one are tried too."""

    def run(function):
        try:
            function()
            print("ok", name, flush=True)
        except BaseException:
            _failed.append(name)
            print("FAILED", name, flush=True)
            traceback.print_exc(file=sys.stdout)

    return run


def finish():
    sys.exit("failed: " + ", ".join(_failed) if _failed else 0)


def same(got, want):
    if got != want:
        raise AssertionError(f"got {got!r:.2000}, want {want!r:.2000}")


def until(condition, seconds=20):
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain")
        time.sleep(0.02)


def awkward(i):
    """A text with whatever COPY's text format has to escape; None now and then."""
    return None if i % 10 == 9 else f"{i}\ttab \\ back\\nslash \\. \r return \n line 'quote' \"double\", é 東 \U0001f600"


def copy_text(i):
    """The row of awkward(i) in COPY's text format."""
    text = awkward(i)
    if text is None:
        return f"{i}\t\\N\n"
    for char, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\r", "\\r"), ("\n", "\\n")):
        text = text.replace(char, escaped)
    return f"{i}\t{text}\n"
