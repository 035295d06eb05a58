"""The one exception a user meets: a mistake, explained, with the way out."""


class UserError(Exception):
    """Something the user can put right: it names the setting, row or file, the value found, and what would work.

    The command line prints it without a traceback and leaves with exit code 2.
    """


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
