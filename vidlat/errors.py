"""The error tree: every error a user can cause is one clear line, with an exit code."""

import enum
import reprlib


class ExitCode(enum.IntEnum):
    """How a command ends."""

    DONE = 0
    REFUSED = 1
    """Nothing was done, or what was checked is not in order."""
    WRONG_SETTINGS = 2
    """An unknown flag, or a value that a setting cannot take; click's own code for it."""
    SOME_FAILED = 3
    """All was done but for some of the videos."""
    INTERRUPTED = 130
    """Ended by Ctrl-C: 128 and the number of SIGINT, as shells have it."""


SHOWN_LETTERS = 120
"""Most letters of a value that a message shows."""


class _Short(reprlib.Repr):
    """`repr` of the start of a value, whatever it holds: itself, or a number that Python refuses to write."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 2, 4, 4, 4
        self.maxstring = self.maxother = SHOWN_LETTERS

    def repr_int(self, number: int, level: int) -> str:
        short = number.bit_length() <= 200
        return super().repr_int(number, level) if short else f"a whole number of {number.bit_length()} bits"


def one_line(error: BaseException) -> str:
    """The message of any exception on one line; without a message, the name of its class."""
    reason = getattr(error, "strerror", None) or str(error)
    return " ".join(reason.split()) or type(error).__name__


def printable(text: str) -> str:
    """A text on one line: newlines, control codes and broken characters are escaped as in a Python string."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def shown(value: object) -> str:
    """A value from a document in a message: as Python writes it, cut off after SHOWN_LETTERS."""
    text = printable(_Short().repr(value))
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}..."


OUT_OF_MEMORY_TEXTS = (
    "can't allocate memory",  # a CPU
    "Cannot allocate memory",
    "out of memory",  # CUDA
    "ALLOC_FAILED",  # cuDNN and cuBLAS
    "could not create a primitive",  # oneDNN, which does not state the reason
    "could not create a memory",
    "can't start new thread",  # no space for its stack
    "Failed to launch worker thread",  # Arrow
    "failed to map segment",  # a library that is loaded late
    "bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: libraries say so in errors of many classes."""
    classes = MemoryError, NotEnoughMemoryError
    is_named_so = isinstance(error, classes) or type(error).__name__ == "OutOfMemoryError"  # PyTorch's
    return is_named_so or any(text in str(error) for text in OUT_OF_MEMORY_TEXTS)


class VidlatError(Exception):
    """A failure explained in one line: what was got, what was expected, what to do."""

    exit_code = ExitCode.REFUSED


class ConfigError(VidlatError):
    """A setting that does not exist or a value it cannot take."""

    exit_code = ExitCode.WRONG_SETTINGS


class TimingError(ConfigError):
    """Times of a VAE call, such as the length of its stack, that do not fit the VAE or each other."""


class InputError(VidlatError):
    """A path to read that is not there, or holds nothing to read."""


class DeviceError(VidlatError):
    """A device that was asked for and is not there."""


class ShapeError(VidlatError):
    """An array that the network cannot take."""


class WeightsError(VidlatError):
    """VAE weights that are missing, damaged, of another network, or cannot be fetched."""


class UnknownWeightsError(WeightsError):
    """A name, not a path, that no VAE weights have."""

    exit_code = ExitCode.WRONG_SETTINGS


class DecodeError(VidlatError):
    """A video that cannot be turned into frames. `kind` is a short machine-readable word."""

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[str, str]]:
        return type(self), (str(self), self.kind)


class ReaderDiedError(VidlatError):
    """A process that read a video for another one has ended."""


class EncodeError(VidlatError):
    """Latents that must not be stored: not finite, or beyond what float16 holds."""


class NotEnoughMemoryError(EncodeError):
    """A call of a network that needs more memory than its device has left."""


class ScratchError(VidlatError):
    """A folder for what is encoded and not yet written that takes no more of it."""


class StoreError(VidlatError):
    """A path that is no cache, a cache of an unknown version, or one that cannot be written."""


class ShardExistsError(StoreError):
    """A range that was written to before, by another attempt."""


class CacheMismatchError(StoreError):
    """Settings that differ from those a cache was made with."""


class TrainError(VidlatError):
    """A run that cannot start, resume or go on."""


class CopyError(VidlatError):
    """Samples that copy training clips however often they are drawn; the others are written."""

    exit_code = ExitCode.SOME_FAILED
