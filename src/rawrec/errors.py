"""The one exception a user meets: a mistake, explained, with the way out."""

LONGEST = 1500
"""Characters of a line that somebody reads."""


class UserError(Exception):
    """Something the user can put right: it names the setting, row or file, the value found, and what would work.

    The command line prints it without a traceback and leaves with exit code 2. A line of more than LONGEST characters,
    which only a value or a name of a stranger can make, is cut in its middle.
    """

    def __init__(self, message: object = "", *more: object) -> None:
        super().__init__(_readable(message) if isinstance(message, str) else message, *more)


def _readable(message: str) -> str:
    if len(message) <= LONGEST:
        return message
    lines = message.split("\n")
    return "\n".join(line if len(line) <= LONGEST else f"{line[:1000]} … {line[-400:]}" for line in lines)


class IdleSetting(UserError):
    """A setting, `key`, that would do nothing beside the others. `keys`: all such; the message is of the first."""

    def __init__(self, key: str, message: str, keys: tuple[str, ...] = ()):
        super().__init__(message)
        self.key, self.keys = key, keys or (key,)


class RunStopped(Exception):
    """A run that cannot go on through no mistake of a setting's form: the message says where it stands and what to try.

    The command line prints it without a traceback and leaves with exit code 1.
    """


class RunInterrupted(KeyboardInterrupt):
    """A run that was ended by Ctrl-C or another signal, `number`: the message says where it stands and how to go on.

    The command line prints it without a traceback and leaves with exit code 128 + number.
    """

    def __init__(self, message: str, number: int = 2) -> None:
        super().__init__(message)
        self.number = number


class NeedsProcesses(UserError):
    """A run that `count` processes are to train, and this is one alone. The command line starts them."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"train.processes={count} is done by processes that `rawrec train` starts; from Python start the whole "
            f"program so often: torchrun --nproc-per-node {count} PROGRAM"
        )
        self.count = count


class ToldElsewhere(Exception):
    """The end of a process of which another one of the same run tells.

    The command line says nothing and leaves with this exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""What libraries say, in errors of their own, where memory ran out."""


def refused_by_system(error: BaseException) -> str | None:
    """In a line, what the system has refused: a place on a disk, memory. None for any other error."""
    if isinstance(error, OSError):
        what = (str(error.strerror or error).splitlines() or [type(error).__name__])[0]
        return what if error.filename is None else f"{what}: {error.filename}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _of_memory(error)):
        return "out of memory"
    return None


def in_a_line(error: BaseException) -> str:
    """What an error says, in a line of 300 characters at most, with its kind where it is not the system's."""
    told = refused_by_system(error)
    if told is None:
        first = (str(error).strip().splitlines() or [""])[0]
        told = f"{type(error).__name__}{': ' * bool(first)}{first}"
    return told if len(told) <= 300 else told[:299] + "…"


def _of_memory(error: RuntimeError) -> bool:
    return any(words in str(error) for words in OUT_OF_MEMORY)
