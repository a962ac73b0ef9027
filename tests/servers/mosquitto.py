"""A real MQTT broker (mosquitto) for tests, which can be killed and started again with what it had saved."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from camera_rig import free_port
from needs import need
from waiting import source_of


class Broker:
    """mosquitto on a free port. ``lines`` are added to its configuration; ``whole`` is one that has ``port`` in it."""

    def __init__(self, folder: Path, *lines: str, port: int = 0, whole: str = "") -> None:
        self.port = port or free_port()
        self._file = folder / "mosquitto.conf"
        text = ["user root", f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {folder}/"]
        text += lines or ["allow_anonymous true"]
        self._file.write_text(f"user root\n{whole}" if whole else "\n".join(text) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([need("mosquitto"), "-c", str(self._file)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise TimeoutError("mosquitto does not listen")

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
        self._process = None


class Listener:
    """Subscribes with a session that the broker keeps, and writes down what comes as (topic, payload, retained)."""

    def __init__(self, broker: Broker, topic: str = "#", *, client_id: str = "listener", **login: Any) -> None:
        from paho.mqtt import client as paho

        self.got: list[tuple[str, str, bool]] = []
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        if login:
            self._client.username_pw_set(**login)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._subscribed.wait(20)

    def _take(self, _client: object, _data: object, message: Any) -> None:
        with self._changed:
            self.got.append((message.topic, message.payload.decode(errors="replace"), message.retain))
            self._changed.notify_all()

    def wait_for(self, is_there: Any, timeout_s: float = 30) -> None:
        with self._changed:
            is_in_time = self._changed.wait_for(lambda: is_there(self.got), timeout_s)
            assert is_in_time, f"time limit: not within {timeout_s:g} s: {source_of(is_there)}; last: {self.got[-5:]}"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False, qos: int = 1) -> None:
        self._client.publish(topic, payload, qos, retain).wait_for_publish(20)
