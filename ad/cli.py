"""What the three scripts share: options that help, one-line errors, signals. Needs no torch."""

import argparse
import contextlib
import difflib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, TextIO

from ad import InputError, ranks

SCRIPTS = "train.py", "infer.py", "visualize.py"


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose --help shows the options of `first`, and --help-all all of them; which
    says in one line what is wrong and what may have been meant, exit code 2."""

    def __init__(self, doc: str, first: tuple):
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter,
                         allow_abbrev=False, usage=argparse.SUPPRESS)
        self.first = first
        self.add_argument("--help-all", action="store_true", help="show all options")

    def parse_args(self, words: list | None = None,
                   namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        if "--help-all" in (sys.argv[1:] if words is None else words):
            self.print_help(everything=True)
            self.exit()
        return super().parse_args(words, namespace)

    def print_help(self, file: TextIO | None = None, everything: bool = False) -> None:
        for action in self._actions:
            if not everything and action.dest not in (*self.first, "help", "help_all"):
                action.help = argparse.SUPPRESS
        super().print_help(file)

    def error(self, message: str) -> NoReturn:
        start, _, rest = message.partition(": ")
        if start == "unrecognized arguments":
            known = [name for action in self._actions for name in action.option_strings]
            hints = [word + hint for word in rest.split() if word.startswith("--")
                     and (hint := near(word.split("=")[0], known))]
            message = f"unknown option {', '.join(hints)}" if hints else message
        self.exit(2, f"error: {message} (see --help)\n" if first_process() else "")


def progress(total: int, what: str, show: bool = True) -> object:
    """A progress bar of images or the like, which appears after 3 seconds; on no terminal a line
    every half minute."""
    from tqdm import tqdm  # here, as it is not needed to answer --help
    return tqdm(total=total, desc=what, leave=False, delay=3, disable=not show,
                mininterval=0.2 if sys.stderr.isatty() else 30)


def first_process() -> bool:
    """Is it the one of several, started by torchrun, that prints?"""
    return os.environ.get("RANK", "0") == "0"


def near(word: str, known: Iterable) -> str:
    """"; did you mean X?" for the nearest of the known words, "" where none is near."""
    found = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


def require(condition: object, text: str) -> None:
    """Raise InputError(text) unless the condition holds."""
    if not condition:
        raise InputError(text)


def command(script: str, data: str | None, runs: str | Path, *options) -> str:
    """A line for a shell: a script of this project with these options and, where they were given,
    --data and --runs."""
    folder = Path(sys.argv[0]).parent if Path(sys.argv[0]).name in SCRIPTS else Path()
    given = ("--data", data or ""), ("--runs", "" if str(runs) == "runs" else runs)
    return shlex.join(["python", str(folder / script), *map(str, options), *(
        str(word) for pair in given if str(pair[1]) for word in pair)])


SIGNALS = signal.SIGINT, signal.SIGTERM


class Interrupted(BaseException):
    """SIGINT or SIGTERM; args[0] is the signal's number."""


def interrupt(number: int, frame: object) -> NoReturn:
    raise Interrupted(number)


def explained(error: Exception) -> str:
    """A line for an error of the machine's, not the program's; any other is raised again."""
    name, text = type(error).__name__, str(error)
    if "gloo" in text or name == "DistBackendError":
        return ("lost the connection to another process, which has stopped; what was finished is "
                "kept, and train.py --resume goes on from the last whole epoch")
    if "OutOfMemory" in name or isinstance(error, MemoryError) or "t allocate memory" in text:
        return ("there is not enough memory; less is needed with a smaller --image-size, or --batch"
                " to train, or --window-batch to score; what was finished is kept")
    raise error


@contextlib.contextmanager
def deferred() -> Iterator[list]:
    """SIGINT and SIGTERM only enter the list that this yields, until the block ends; then the first
    is raised as Interrupted. A third one (torchrun sends a second of its own) is raised at once."""
    caught = []

    def note(number, frame):
        caught.append(number)
        if len(caught) == 3:
            raise Interrupted(number)
        # Not print, in whose midst the signal may have come.
        os.write(2, b"stopping as soon as what was learned is saved; twice more stops at once\n")
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise Interrupted(caught[0])


def run_script(parse_args: Callable, main: Callable) -> NoReturn:
    """Run main(parse_args()), which returns the exit code. An InputError becomes a line on stderr
    (several, if several files are bad) and exit code 2, SIGINT and SIGTERM one line and 130 and
    143. Files are only ever replaced as a whole, so that what was finished before is on disk."""
    for number in SIGNALS:
        signal.signal(number, interrupt)
    shown = first_process()  # every process finds the same fault in the options
    sys.stdout.reconfigure(errors="backslashreplace")  # for names of files that are not UTF-8
    try:
        args = parse_args()
        shown = True
        ranks.begin()
        code = main(args)
        ranks.leave()
        sys.stdout.flush()
        sys.exit(code)
    except InputError as error:
        code, line = 2, f"error: {error}" if shown else ""
    except BrokenPipeError:  # whoever read what is printed, as head does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # of what is left to flush
        code, line = 128 + signal.SIGPIPE, ""
    except OSError as error:  # a full disk, say
        code, line = 2, f"error: {error.filename or 'a file'}: {error.strerror or error}"
    except (RuntimeError, MemoryError) as error:
        code, line = 2, f"error: {explained(error)}"
    except Interrupted as error:
        code, line = 128 + error.args[0], f"stopped by {signal.Signals(error.args[0]).name}" + (
            "; what was finished is kept, and --resume goes on from there"
            if Path(sys.argv[0]).name == "train.py" else "")
    if line:
        print(line, file=sys.stderr)
    sys.exit(code)
