"""What every operation is called with beside its typical case: without a token, with a wrong one, about what is not there,
and with each of its query parameters."""

import datetime

import airflow_client.client.models as m

#: Text that would do harm if it became part of a statement, a path or a pattern.
HOSTILE = ["' OR '1'='1", "'; DROP TABLE dag_runs; --", "../../etc/passwd", "%", "_", "\\", "~", "a|b", "\u00fc\u2603"]
TIME = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
#: Names of what a path names, and something that is never there.
ABSENT = {
    "dag_id": "no_such_dag",
    "dag_run_id": "no_such_run",
    "task_id": "no_such_task",
    "group_id": "no_such_group",
    "map_index": 999,
    "pool_name": "no_such_pool",
    "variable_key": "no_such_variable",
    "connection_id": "no_such_connection",
    "xcom_key": "no_such_key",
    "asset_id": 987654321,
    "backfill_id": 987654321,
    "event_log_id": 987654321,
    "import_error_id": 987654321,
    "version_number": 9999,
    "task_try_number": 99,
    "try_number": 99,
    "option": "no_such_option",
    "section": "no_such_section",
}
#: What these parameters take; any other text finds nothing.
TAKES = {
    "state": ["success", "failed", "running"],
    "run_type": ["manual", "scheduled"],
    "last_dag_run_state": m.DagRunState.SUCCESS,
    "dag_run_state": ["success"],
    "tags_match_mode": "all",
    "warning_type": m.DagWarningType.NON_MINUS_EXISTENT_POOL,
    "section": "api",
    "response_received": True,
}
#: Parameters of these names say where to go on and what to leave; they are tried by hand.
BY_HAND = {"before", "cursor", "token", "update_mask", "interval", "result", "order_by", "airflow_connection_test_token"}


def refusals(oracle, name, args, absent_fits=()):
    """Cases that must be refused: who asks, and what is not there."""
    operation = oracle.operations[name]
    if operation.needs_token:
        oracle.call(name, 401, who="nobody", why="no token", args=args)
        oracle.call(name, 401, who="stranger", why="a wrong token", args=args)
    if operation.needs_token and operation.method != "GET":
        # Everybody may like a DAG, and what only looks may be asked by everybody.
        fitting = (204, 409) if "favorite" in name else (403, 501)
        oracle.call(name, fitting, who="viewer", why="a viewer", args=args)
    for part, absent in ABSENT.items():
        if f"{{{part}}}" in operation.path and part in args and part not in absent_fits:
            wrong = {**args, part: absent}
            oracle.call(name, 404, why=f"no such {part}", args=wrong)


def queries(oracle, name, args):
    """Every query parameter by itself, with what it takes and with what it should bear."""
    operation = oracle.operations[name]
    for parameter, kind in operation.query.items():
        if parameter in BY_HAND or parameter in args:
            continue
        if parameter == "limit":
            oracle.call(name, why="a page of one", args={**args, "limit": 1})
            oracle.call(name, why="a page of none", args={**args, "limit": 0})
            continue
        if parameter == "offset":
            oracle.call(name, why="a page after the last", args={**args, "offset": 100_000})
            continue
        # One instance may be there and another not.
        fitting = (200, 404, 501) if parameter == "map_index" else (200, 204, 501)
        for value in values(parameter, kind):
            wrapped = [value] if "List[" in kind and not isinstance(value, list) else value
            oracle.call(name, fitting, why=f"by {parameter}", args={**args, parameter: wrapped})
    if "order_by" in operation.query:
        oracle.call(name, 400, why="an unknown order", args={**args, "order_by": ["colour"] if "List[" in operation.query["order_by"] else "colour"})


def values(parameter, kind):
    if parameter in TAKES:
        return [TAKES[parameter]]
    if parameter.endswith("_pattern"):
        return HOSTILE
    if "datetime" in kind:
        return [TIME]
    if "bool" in kind:
        return [True, False]
    if "float" in kind:
        return [0.5]
    if "int" in kind:
        return [1]
    return HOSTILE[:2]
