"""A private Airflow: its settings, processes and REST API. Everything that it starts and writes goes with it."""

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from processes import tree

START = 180.0
STOP = 30.0
ROLES = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler"],
    "dag-processor": ["dag-processor"],
    # Its log server would listen on every address of the machine.
    "worker": ["celery", "worker", "--skip-serve-logs"],
}
# Of prctl(2).
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None, use_errno=True)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def die_with_parent():
    """In a child before it becomes Airflow: should this process be killed, the child is told to stop."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Airflow:
    """Settings are Airflow's defaults, but for what must be named and what would reach beyond this machine."""

    def __init__(self, database, amqp, environment):
        self.folder = tempfile.TemporaryDirectory(prefix="gristmill-airflow-")
        self.home = Path(self.folder.name)
        self.roots = {}
        self.base = f"http://127.0.0.1:{free_port()}"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.token = None
        database = "postgresql://" + database.partition("://")[2]
        settings = {
            "CORE__EXECUTOR": "CeleryExecutor",
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.base}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "API__HOST": "127.0.0.1",
            "API__PORT": self.base.rpartition(":")[2],
            "API__BASE_URL": self.base,
            "API__SECRET_KEY": secrets.token_hex(32),
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "CELERY__BROKER_URL": amqp,
            "CELERY__RESULT_BACKEND": f"db+{database}",
            "DATABASE__SQL_ALCHEMY_CONN": database,
        }
        # The user's own Airflow is left out of it.
        own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        self.environment = (
            own
            | {f"AIRFLOW__{name}": value for name, value in settings.items()}
            | {"AIRFLOW_HOME": str(self.home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
            | environment
        )
        # Descendants whose parent has ended become ours, to be ended in `stop`.
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)

    def start(self, dags):
        """Starts everything, and waits until these DAGs are known and the roles say that they are well."""
        (self.home / "dags").mkdir()
        shutil.copy(dags, self.home / "dags")
        if self.spawn("migrate", ["db", "migrate"]).wait(START) != 0:
            self.fail("the database could not be set up", ["migrate"])
        self.roots = {role: self.spawn(role, arguments) for role, arguments in ROLES.items()}

        def serves():
            if self.token is None:
                self.token = self.request("GET", "/auth/token")["access_token"]
            health = self.request("GET", "/api/v2/monitor/health")
            known = self.request("GET", "/api/v2/dags")["total_entries"]
            well = all(health[role]["status"] == "healthy" for role in ["scheduler", "dag_processor"])
            return well and known > 0

        deadline = time.monotonic() + START
        while True:
            try:
                if serves():
                    return
            except OSError:
                pass  # Not yet listening, or not yet ready to answer.
            ended = [role for role, process in self.roots.items() if process.poll() is not None]
            if ended:
                self.fail(f"{ended[0]} ended at its start", ended)
            if time.monotonic() > deadline:
                self.fail(f"it was not ready within {START:.0f} s", self.roots)
            time.sleep(0.5)

    def spawn(self, name, arguments):
        with open(self.home / f"{name}.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # Ctrl-C is for us alone, who then stop it in order.
                start_new_session=True, preexec_fn=die_with_parent,
            )

    def pids(self):
        return [process.pid for process in self.roots.values()]

    def request(self, method, path, body=None):
        """The answer as JSON; `urllib.error.HTTPError`, an OSError, when it is refused."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        with self.opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def fail(self, why, roles=()):
        """Ends the measurement; says what these roles wrote last."""
        for role in roles:
            lines = (self.home / f"{role}.log").read_text(errors="replace").splitlines()
            print(f"airflow: the log of {role} ends with", *lines[-20:], sep="\n  ", file=sys.stderr)
        sys.exit(f"airflow: {why}")

    def stop(self):
        """Asks everything to stop, kills what does not, and removes the folder."""
        for process in self.roots.values():
            process.terminate()
        deadline = time.monotonic() + STOP
        # Whatever is below us was started by Airflow. A pid cannot be used again before its parent has waited for it.
        while time.monotonic() < deadline and len(tree(os.getpid())) > 1:
            self.reap()
            time.sleep(0.1)
        while left := [pid for pid in tree(os.getpid()) if pid != os.getpid()]:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.reap()
            time.sleep(0.1)
        self.folder.cleanup()

    def reap(self):
        """Waits for children that ended, adopted ones too."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
