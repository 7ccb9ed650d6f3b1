"""Calls operations with Airflow's official client, and judges the answers by its models.

An answer counts as right when its status is the one that was expected and the client made of it what its own description
says for that status: a model with every required key and the right types for a success, an error model for a refusal.
"""

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re

import airflow_client.client as airflow
import airflow_client.client.api as apis
import pydantic
from airflow_client.client.exceptions import ApiException


@dataclasses.dataclass
class Operation:
    """One operation, as the client has it."""

    name: str
    method: str
    path: str
    api: type
    #: Names of query parameters, and their types.
    query: dict
    #: Statuses with a model; "" stands for no body.
    answers: dict
    needs_token: bool

    @property
    def key(self):
        return f"{self.method} {self.path}"


def operations():
    """Every operation of the client by its name."""
    found = {}
    for module in pkgutil.iter_modules(apis.__path__):
        module = importlib.import_module(f"{apis.__name__}.{module.name}")
        for name, api in inspect.getmembers(module, inspect.isclass):
            if not name.endswith("Api") or api.__module__ != module.__name__:
                continue
            for method, function in inspect.getmembers(api, inspect.isfunction):
                if method.startswith("_") or method.endswith(("_with_http_info", "_without_preload_content")):
                    continue
                # Two groups of the client may have the same operation.
                found.setdefault(method, _operation(api, method, function))
    return found


def _operation(api, name, function):
    source = inspect.getsource(getattr(api, f"_{name}_serialize"))
    query = re.findall(r"_query_params\.append\(\s*\(\s*'([^']+)'", source)
    types = {k: str(v.annotation) for k, v in inspect.signature(function).parameters.items()}
    answers = re.findall(r"'(\d+)': (?:\"([^\"]+)\"|None)", inspect.getsource(function))
    return Operation(
        name=name,
        method=re.search(r"method='(\w+)'", source).group(1),
        path=re.search(r"resource_path='([^']+)'", source).group(1),
        api=api,
        query={q: types.get(q, "") for q in dict.fromkeys(query)},
        answers=dict(answers),
        needs_token="OAuth2PasswordBearer" in source,
    )


class Failed(Exception):
    """An answer was not what it had to be."""


class Oracle:
    """Calls operations and keeps count."""

    def __init__(self, host, tokens):
        self.operations = operations()
        #: By the name of who asks.
        self.clients = {}
        for who, token in tokens.items():
            configuration = airflow.Configuration(host=host)
            configuration.access_token = token
            self.clients[who] = airflow.ApiClient(configuration)
        self.cases = 0
        self.by_operation = {}
        self.failures = []

    def call(self, name, expect=200, who="admin", why="typical", args=None, check=None, model=None):
        """One case. `expect` is a status, or several any of which is right. Gives what the client made of the answer: by
        its own choice of model, or by this one."""
        operation = self.operations[name]
        expected = expect if isinstance(expect, tuple) else (expect,)
        self.cases += 1
        self.by_operation.setdefault(operation.key, set()).add(why)
        try:
            data = self._judge(operation, expected, who, args or {}, model)
            if check is not None and not check(data):
                raise Failed(f"the answer is not as expected: {str(data)[:400]}")
            return data
        except Failed as failed:
            self.failures.append(f"{name} ({why}): {operation.key} {args}: {failed}")
        return None

    def _judge(self, operation, expected, who, args, read_by):
        if read_by is not None:
            function = getattr(operation.api(self.clients[who]), f"{operation.name}_without_preload_content")
            answer = function(**args)
            body = answer.read()
            if answer.status not in expected:
                raise Failed(f"status {answer.status}, not {expected}: {body[:300]}")
            return read_by.from_dict(json.loads(body))
        function = getattr(operation.api(self.clients[who]), f"{operation.name}_with_http_info")
        try:
            answer = function(**args)
        except ApiException as refused:
            return self._judge_refusal(operation, expected, refused)
        except pydantic.ValidationError as wrong:
            raise Failed(f"the client cannot read the answer: {wrong}") from wrong
        if answer.status_code not in expected:
            raise Failed(f"status {answer.status_code}, not {expected}: {answer.raw_data[:300]}")
        model = operation.answers.get(str(answer.status_code))
        if model is None:
            raise Failed(f"status {answer.status_code} is none that the client knows")
        if model and answer.data is None:
            raise Failed("the client made nothing of the answer")
        if not model and answer.raw_data:
            raise Failed(f"a body where there is none: {answer.raw_data[:300]}")
        return answer.data

    def _judge_refusal(self, operation, expected, refused):
        if refused.status not in expected:
            raise Failed(f"status {refused.status}, not {expected}: {str(refused.body)[:400]}")
        try:
            body = json.loads(refused.body)
        except (TypeError, ValueError) as wrong:
            raise Failed(f"the refusal is no JSON: {refused.body!r}") from wrong
        if "detail" not in body:
            raise Failed(f"the refusal has no detail: {body}")
        if str(refused.status) in operation.answers and refused.data is None:
            raise Failed(f"the client made nothing of the refusal: {body}")
        return body
