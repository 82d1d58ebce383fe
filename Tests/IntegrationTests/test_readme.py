#!/usr/bin/env python3
"""Runs the commands of README.md as a newcomer would, so that the README stays true.

```sh       each line is run and must end with 0. `Ops/demo` without an end stays up for all that follows; `Ops/check`,
            which runs this file, is only asked for its help; lines that serve until stopped (`rmsd --config`) are
            asked to check their settings instead.
```console  a session: each line after `$ ` is run on a terminal and must end with 0; lines of the shown output that hold
            no digit must come again.
Other blocks are not run. Commands find the demo's node by RMS_ADDRESS, wherever it listens, and its files
by RMS_DATA_DIR. Exit: 0 all ran, else 1.
"""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
READY_SECONDS = 120
COMMAND_SECONDS = 60


def blocks(text):
    """(language, lines) of every fenced block, backslash-continued lines joined."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        yield match[1], match[2].replace("\\\n", " ").splitlines()


def run(command):
    """Exit code and output of a command that has a terminal."""
    master, slave = pty.openpty()
    environment = dict(os.environ, COLUMNS="100", TERM="xterm", NO_COLOR="1")
    process = subprocess.Popen(["bash", "-c", command], cwd=ROOT, env=environment, stdin=slave, stdout=slave,
                               stderr=slave, start_new_session=True)
    os.close(slave)
    output, deadline = b"", time.monotonic() + COMMAND_SECONDS
    while time.monotonic() < deadline:
        readable, _, _ = select.select([master], [], [], 0.2)
        if readable:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            output += chunk
        elif process.poll() is not None:
            break
    try:
        code = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = f"still running after {COMMAND_SECONDS} s"
    os.close(master)
    return code, output.decode(errors="replace").replace("\r\n", "\n")


class Demo:
    """`Ops/demo`, up until the end of this program."""

    def __init__(self):
        self.process = None
        self.output = tempfile.NamedTemporaryFile()

    def start(self, command):
        self.process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=ROOT, stdin=subprocess.DEVNULL,
                                        stdout=self.output, stderr=self.output, start_new_session=True)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            address = re.search(r"listens on (\S+:\d+)", self.text())
            if address:
                os.environ["RMS_ADDRESS"] = address[1]
                folder = re.search(r"data folder (\S+)", self.text())
                if folder:
                    os.environ["RMS_DATA_DIR"] = folder[1]
                return True
            time.sleep(0.2)
        return False

    def stop(self):
        """Ctrl-C, and the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return "still running 20 s after Ctrl-C"

    def text(self):
        with open(self.output.name, encoding="utf-8", errors="replace") as file:
            return file.read()


def attempt(command, demo):
    """Runs one command of the README; what went wrong, or None."""
    if re.match(r"Ops/check\b", command):
        command = "Ops/check --help"
    if re.fullmatch(r"Ops/demo", command):
        if demo.process is None and not demo.start(command):
            return f"{command}: names no address it listens on after {READY_SECONDS} s\n{demo.text()[-2000:]}"
        return None
    if re.search(r"\brmsd --config\b", command) and "check-config" not in command:
        command += " --check-config"
    code, output = run(command)
    if code != 0:
        return f"{command}: exit {code}\n{output[-2000:]}"
    return None


def transcript(lines):
    """(command, shown output lines) of a session."""
    steps = []
    for line in lines:
        if line.startswith("$ "):
            steps.append((line[2:], []))
        elif steps:
            steps[-1][1].append(line)
    return steps


def main():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        found = list(blocks(file.read()))
    demo, problems, count = Demo(), [], 0
    try:
        for language, lines in found:
            if language == "sh":
                for line in lines:
                    command = re.sub(r"\s+#.*", "", line).strip()
                    if command:
                        count += 1
                        problems.append(attempt(command, demo))
            elif language == "console":
                for command, shown in transcript(lines):
                    count += 1
                    code, output = run(command)
                    squeezed = {" ".join(line.split()) for line in output.splitlines()}
                    missing = [line for line in shown if line.strip() and not re.search(r"[\d…]", line)
                               and " ".join(line.split()) not in squeezed]
                    if code != 0 or missing:
                        problems.append(f"{command}: exit {code}, lines not seen: {missing}\n{output[-2000:]}")
    finally:
        code = demo.stop()
    if code != 0:
        problems.append(f"Ops/demo: exit {code} after Ctrl-C\n{demo.text()[-2000:]}")
    problems = [problem for problem in problems if problem]
    for problem in problems:
        print(f"failed: {problem}")
    if count == 0:
        print("failed: README.md shows no command")
        problems.append("none")
    print(f"{max(0, count - len(problems))} passed, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
