"""What the integration tests in Python share: named tests with a closing line, the programs of the build, nodes.

A test module hands `main` its tests as (name, function) pairs. A test raises `Failed` or any other error to fail and
`Skipped` where something is not to be had; RMS_REQUIRE_STACK=1 turns a skip into a failure. Standard library only.
"""

import argparse
import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import fcntl
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "Protocol")]

import client  # noqa: E402

folder_of_programs = os.environ.get("RMS_BUILD_DIR") or os.path.join(ROOT, ".build", "release")


class Skipped(Exception):
    pass


class Failed(Exception):
    pass


def expect(condition, *told):
    if not condition:
        raise Failed(" ".join(str(each) for each in told)[:1500])


def program(name):
    return os.path.join(folder_of_programs, name)


def environment(**extra):
    """The environment without settings of ours, so that a test sees only what it sets itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RMS_") and name != "NO_COLOR"}
    return clean | {name: str(value) for name, value in extra.items()}


class Done:
    """What a program left: exit code, output as text and as bytes."""

    def __init__(self, code, out, err):
        self.code, self.raw, self.out, self.err = code, out, out.decode(errors="replace"), err.decode(errors="replace")

    def __str__(self):
        return f"exit {self.code}; stdout {self.out[-600:]!r}; stderr {self.err[-600:]!r}"

    def wants(self, code, *in_errors, out=None):
        """Checks exit code, that standard error holds each text, and standard output."""
        expect(self.code == code, f"wanted exit {code}:", self)
        for text in in_errors:
            expect(text in self.err, f"{text!r} is not said:", self)
        if out is not None:
            expect(self.out == out, f"wanted stdout {out!r}:", self)
        return self


def run(words, env=None, timeout=60, stdout=None):
    try:
        done = subprocess.run(
            words, env=env if env is not None else environment(), stdin=subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(words)}: no end after {timeout} s") from None
    return Done(done.returncode, done.stdout or b"", done.stderr)


def ctl(address, *words, **options):
    return run([program("rmsctl"), "--address", address, *words], **options)


def on_terminal(words, columns, env, lines=40, timeout=30, quit_after=None):
    """Runs a program on a pseudo-terminal; what it showed, and its exit code. `quit_after` sends Ctrl-C then."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
    os.close(slave)
    shown, end, quit_at = b"", time.monotonic() + timeout, quit_after and time.monotonic() + quit_after
    try:
        while time.monotonic() < end:
            if quit_at and time.monotonic() > quit_at:
                process.send_signal(signal.SIGINT)
                quit_at = None
            if select.select([master], [], [], 0.1)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:
                    break
                if not data:
                    break
                shown += data
        else:
            raise Failed(f"{' '.join(words)}: no end on a terminal after {timeout} s: {shown[-300:]!r}")
        return process.wait(10), shown
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# ---- Nodes -------------------------------------------------------------------------------------------------------------


class Node:
    """A running rmsd."""

    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log
        self.address = f"127.0.0.1:{port}"

    def said(self):
        with open(self.log, errors="replace") as file:
            return file.read()

    def complaint(self):
        """The end of the log; of a crash, its first lines."""
        said = re.sub("\x1b\\[[0-9;]*m", "", self.said())
        at = max(said.find("Fatal error"), said.find("*** "))
        return said[at:at + 1200] if at >= 0 else said[-800:]

    def alive(self):
        expect(self.process.poll() is None, f"rmsd ended with {self.process.returncode}: {self.complaint()}")

    def ctl(self, *words, **options):
        return ctl(self.address, *words, **options)

    def json(self, *words, **options):
        done = self.ctl(*words, "-o", "json", **options)
        expect(done.code == 0, " ".join(words), done)
        return json.loads(done.out)

    def client(self, **options):
        return client.Client("127.0.0.1", self.port, **options)

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1])

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def until(self, what, condition, seconds=30):
        """Asks `condition` again and again until it gives something; that is the result."""
        end = time.monotonic() + seconds
        while True:
            self.alive()
            found = condition()
            if found:
                return found
            expect(time.monotonic() < end, f"never seen within {seconds} s: {what}; the log: {self.said()[-800:]}")
            time.sleep(0.05)

    def until_said(self, text, seconds=30):
        self.until(f"{text!r} in the log", lambda: text in self.said(), seconds)

    def until_caught_up(self, seconds=60):
        done = self.ctl("status", "--until", "caught-up", "--timeout", f"{seconds}s", timeout=seconds + 20)
        expect(done.code == 0, "not caught up:", done, self.said()[-800:])

    def broker_ports(self):
        """Ports of the broker in this process: what it listens on besides queries and HTTP."""
        return [port for port in self.other_ports() if http_get(port, "/livez") is None]

    def closed_by_reason(self):
        """`rms_closed_total` by reason, from the metrics page."""
        page = next(page for port in self.other_ports() if (page := http_get(port, "/metrics")))
        return {reason: int(float(value)) for reason, value in re.findall(r'rms_closed_total\{reason="(\w+)"\} (\S+)', page)}

    def other_ports(self):
        inodes = set()
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{self.process.pid}/fd/{name}")))
        ports = []
        with open("/proc/net/tcp") as file:
            for line in list(file)[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    ports.append(int(fields[1].split(":")[1], 16))
        return [port for port in ports if port != self.port]


def http_get(port, path):
    """The answer's text; None where nobody speaks HTTP."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as wire:
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        with wire.makefile("rb") as file:
            answer = file.read()
        return answer.decode(errors="replace") if answer.startswith(b"HTTP/") else None
    return None


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def node(limits=None, **settings):
    """A node whose brokers are away unless `settings` (keys with _ for dots) name some; ends with the block.

    `limits` is shell text that runs before it, such as `ulimit -n 256`.
    """
    folder = tempfile.mkdtemp(prefix="rms-test-")
    port = free_port()
    values = {
        "data_dir": os.path.join(folder, "data"), "query_listen": f"127.0.0.1:{port}",
        "http_listen": f"127.0.0.1:{free_port()}", "kafka_bootstrap_servers": "127.0.0.1:1", "kafka_topic": "steps",
        "kafka_group_id": f"test-{port}",
    } | settings
    config = os.path.join(folder, "rmsd.conf")
    names = {"query_connections_max": "query.connections_max",
             "query_connections_per_address_max": "query.connections_per_address_max",
             "steps_total_policy": "steps.total_policy", "event_steps_max": "event.steps_max",
             "kafka_held_back_max": "kafka.held_back_max", "day_accept_late": "day.accept_late",
             "day_future_slack": "day.future_slack"}
    with open(config, "w") as file:
        file.writelines(f"{names.get(key, key.replace('_', '.'))} = {value}\n" for key, value in values.items())
    log = os.path.join(folder, "rmsd.log")
    words = [program("rmsd"), "--config", config]
    if limits:
        words = ["bash", "-c", f"{limits}; exec \"$@\"", "bash", *words]
    with open(log, "w") as file:
        process = subprocess.Popen(
            words, env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=folder)
    running = Node(process, port, log)
    try:
        running.until("an open port", lambda: is_open(port))
        yield running
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def is_open(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


class Demo:
    """`rmsd --demo`: a node with data and a broker of its own, shared by the tests that only ask it."""

    def __init__(self):
        self.node = None

    def __call__(self):
        if self.node is None:
            self.folder = tempfile.mkdtemp(prefix="rms-test-demo-")
            log = os.path.join(self.folder, "rmsd.log")
            with open(log, "w") as file:
                process = subprocess.Popen(
                    [program("rmsd"), "--demo", "--set", "query.connections_per_address_max=10000"], env=environment(),
                    stdin=subprocess.DEVNULL, stdout=file, stderr=file)
            self.node = Node(process, 0, log)
            found = self.node.until(
                "the demo's address", lambda: re.search(r"node listens on (\S+):(\d+)", self.node.said()))
            self.node.port = int(found[2])
            self.node.address = f"127.0.0.1:{found[2]}"
            self.node.until("counted events", lambda: sum(s["counted"] for s in self.node.json("status")["shards"]) > 5000)
        self.node.alive()
        return self.node

    def close(self):
        if self.node:
            end(self.node.process)
            shutil.rmtree(self.folder, ignore_errors=True)


# ---- Raw bytes ---------------------------------------------------------------------------------------------------------


def hello(ident=1, least=1, greatest=1, options=()):
    return client.encode_request({
        "kind": "hello", "id": ident, "version_min": least, "version_max": greatest, "name": "test", "language": "python",
        "version": "1", "options": [list(each) for each in options]})


def ask(kind, ident, **fields):
    return client.encode_request({"kind": kind, "id": ident} | fields)


class Wire:
    """A socket to a node, and the frames that come back."""

    def __init__(self, port, *first, timeout=10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.received, self.closed = bytearray(), False
        for data in first:
            self.send(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def frame(self, timeout=10):
        """The next frame decoded; None once the node has closed."""
        self.socket.settimeout(timeout)
        while True:
            if len(self.received) >= 4:
                whole = struct.unpack_from("<I", self.received)[0] + 4
                if len(self.received) >= whole:
                    data = bytes(self.received[:whole])
                    del self.received[:whole]
                    return client.decode_answer(data)
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            except socket.timeout:
                raise Failed(f"no frame within {timeout} s") from None
            if not data:
                expect(not self.received, f"a cut frame before the end: {bytes(self.received[:40])!r}")
                return None
            self.received += data

    def wants_error(self, name, ident, timeout=10):
        answer = self.frame(timeout)
        expect(answer, f"closed without {name}")
        expect(answer["kind"] == "error" and client.ERRORS.get(answer["code"]) == name and answer["id"] == ident,
               f"wanted {name} for {ident}, got {answer}")
        return answer["text"]

    def wants(self, kind, ident, timeout=10):
        answer = self.frame(timeout)
        expect(answer and answer["kind"] == kind and answer["id"] == ident, f"wanted {kind} {ident}, got {answer}")
        return answer

    def wants_end(self, timeout=10):
        answer = self.frame(timeout)
        expect(answer is None, f"wanted the end, got {answer}")


# ---- Running -----------------------------------------------------------------------------------------------------------


def main(description, tests, needs=("rmsd", "rmsctl"), cleanup=(), parents=()):
    """Runs (name, function) pairs; prints a line each and a closing line; exits 1 if any failed. `parents` are parsers of
    options that the module reads itself."""
    global folder_of_programs
    parser = argparse.ArgumentParser(description=description, parents=parents)
    parser.add_argument("--bin", help="folder of the programs (RMS_BUILD_DIR; .build/release of this checkout)")
    parser.add_argument("--only", help="run the tests whose name holds this")
    options = parser.parse_args()
    if options.bin:
        folder_of_programs = os.path.abspath(options.bin)
    missing = next((program(name) for name in needs if not os.path.exists(program(name))), None)
    # Whoever ends this early ends what it started as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    passed = failed = skipped = 0
    try:
        for name, test in tests:
            if options.only and options.only not in name:
                continue
            begin = time.monotonic()
            try:
                if missing:
                    raise Failed(f"{missing} is missing: swift build -c release")
                told = test()
                passed += 1
                print(f"passed  {name} ({time.monotonic() - begin:.1f} s{'; ' + told if told else ''})", flush=True)
            except Skipped as reason:
                if os.environ.get("RMS_REQUIRE_STACK") == "1":
                    failed += 1
                    print(f"FAILED  {name}: skipped where it must not be: {reason}", flush=True)
                else:
                    skipped += 1
                    print(f"skipped {name}: {reason}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
    finally:
        for each in cleanup:
            each()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
