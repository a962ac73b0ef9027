"""Log lines as text or JSON. Secrets are taken out where a line is written, so that no caller can forget it."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from edge.addresses.printable import printable
from edge.addresses.secrets import redacted

if TYPE_CHECKING:
    from edge.config.daemon import LogSettings

log = logging.getLogger(__name__)
LogForm = Literal["text", "json"]
# libraries talk for themselves; their details are for those who ask
NOISY = (
    *("uvicorn", "libav", "asyncio", "PIL", "matplotlib", "onnxscript", "torch", "paho", "httpx", "httpcore"),
    # a line for each address of each viewer
    *("aioice", "aiortc"),
)
# the levels of syslog(3), which journald reads in front of a line
_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class TextFormatter(logging.Formatter):
    """``18:02:11 W door: backing_off …``; for journald, which has the time already, ``<4>door: backing_off …``."""

    def __init__(self, *, is_journal: bool = False) -> None:
        super().__init__("%(message)s" if is_journal else "%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S")
        self._is_journal = is_journal

    def format(self, record: logging.LogRecord) -> str:
        text = printable(redacted(super().format(record)))
        if not self._is_journal:
            return text
        prefix = f"<{_SYSLOG.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in text.splitlines()) or prefix


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``thread``, ``message``, ``error`` if any."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        facts: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            # before the encoding: JSON's own escapes must not hide what is to be found
            "message": printable(redacted(record.getMessage())),
        }
        if record.exc_info:
            facts["error"] = redacted(self.formatException(record.exc_info))
        return json.dumps(facts, ensure_ascii=False)


def set_up_as_configured(settings: LogSettings) -> None:
    """As the configuration says; ``--debug`` and ``--quiet`` win over its level."""
    level = logging.getLogger().level
    set_up(getattr(logging, settings.level.upper()) if level == logging.INFO else level, settings.form)


def set_up(level: int = logging.INFO, form: LogForm = "text") -> None:
    """Send every log line, warning and unexpected exception to standard error, without secrets. May be called again.

    Args:
        level: of our own lines; libraries are quieter unless it is DEBUG.
        form: text for people, json for collectors.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(is_journal=_is_journal()))
    root = logging.getLogger()
    for old in list(root.handlers):
        # only what this function installed: the tests' own handlers stay
        if getattr(old, "is_of_edge", False) or not _is_foreign(old):
            root.removeHandler(old)
    handler.is_of_edge = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _log_exception
    threading.excepthook = _log_thread_exception


def _is_foreign(handler: logging.Handler) -> bool:
    return type(handler) is not logging.StreamHandler


def _is_journal() -> bool:
    """Whether standard error goes to journald: systemd names its device and inode."""
    stated = os.environ.get("JOURNAL_STREAM")
    if not stated:
        return False
    try:
        facts = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stated == f"{facts.st_dev}:{facts.st_ino}"


def _log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("unexpected %s; please report it", kind.__name__, exc_info=(kind, error, trace))


def _log_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _log_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
