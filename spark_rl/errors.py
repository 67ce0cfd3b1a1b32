"""How a command can end badly: the user's input is wrong (exit 2), a run failed (1), a person stopped it (130)."""


class SparkRLError(Exception):
    """One line in four parts: where it happened, what was got, what was wanted, what to do now.

    Empty parts are left out, so a single sentence is a message too. White space is folded: the line stays one line
    whatever a value contains. The parts are the exception's arguments, so it pickles on its way from a worker.
    """

    exit_code = 1

    def __init__(self, where: str, got: str = "", wanted: str = "", todo: str = "") -> None:
        super().__init__(where, got, wanted, todo)
        self.where, self.got, self.wanted, self.todo = where, got, wanted, todo

    def __str__(self) -> str:
        parts = [f"got {self.got}" if self.got else "", f"wanted {self.wanted}" if self.wanted else "", self.todo]
        detail = "; ".join(part for part in parts if part)
        return " ".join(f"{self.where}: {detail}".split()) if detail else " ".join(self.where.split())


class UserError(SparkRLError):
    """The input is wrong and only the user can mend it: a key, a value, a path, a missing package. Exit code 2."""

    exit_code = 2


class RunError(SparkRLError):
    """The input was right and the work failed all the same: a task, a file, a machine. Exit code 1."""


class Interrupted(SparkRLError):
    """A person stopped the work with Ctrl-C, and the line says how to go on. Exit code 130, as shells have it."""

    exit_code = 130
