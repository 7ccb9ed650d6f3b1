"""The suite: what has to be there, and every operation's cases.

    GRISTMILL_API_URL=… GRISTMILL_ADMIN_TOKEN=… GRISTMILL_VIEWER_TOKEN=… python suite.py SUMMARY.json

The server has the DAGs of `dags/` beside this file. Every operation of the client is called; where the server has no
counterpart, the answer has to be 501 and to say so.
"""

import json
import os
import sys
import time
import typing
import urllib.request

import airflow_client.client.models as m

from oracle import Oracle
from variations import TIME, queries, refusals

HOST = os.environ["GRISTMILL_API_URL"]
TOKENS = {
    "admin": os.environ["GRISTMILL_ADMIN_TOKEN"],
    "viewer": os.environ["GRISTMILL_VIEWER_TOKEN"],
    "nobody": None,
    "stranger": "gm_00000000000000000000000000000000",
}
DAG, RUN = "shop", "manual__2026-01-01T00:00:00+00:00"
ALL = "~"
oracle = Oracle(HOST, TOKENS)
call = oracle.call


def sign_in():
    """The client has no call for it: people fetch a token with whatever speaks HTTP."""
    body = json.dumps({"username": "admin", "password": os.environ["GRISTMILL_ADMIN_PASSWORD"]}).encode()
    request = urllib.request.Request(f"{HOST}/auth/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201, answer.status
        token = json.load(answer)["access_token"]
    oracle.clients["signed in"] = type(oracle.clients["admin"])(
        type(oracle.clients["admin"].configuration)(host=HOST, access_token=token)
    )
    oracle.cases += 1
    oracle.by_operation.setdefault("POST /auth/token", set()).add("typical")
    call("get_dags", who="signed in", why="with a session")


def ended(dag_id, run_id):
    """Waits for a run's end as the client does."""
    args = {"dag_id": dag_id, "dag_run_id": run_id, "interval": 0.2}
    return call("wait_dag_run_until_finished", args=args)


def trigger(dag_id, run_id=None, **more):
    body = m.TriggerDAGRunPostBody(dag_run_id=run_id, logical_date=None, **more)
    run = call("trigger_dag_run", args={"dag_id": dag_id, "trigger_dag_run_post_body": body})
    return run.dag_run_id


def listing(name, check=None, **args):
    """A listing: typical, refused, paged, by each parameter."""
    call(name, args=args, check=check)
    refusals(oracle, name, args, absent_fits=() if ALL not in args.values() else tuple(args))
    queries(oracle, name, args)


def one(name, check=None, **args):
    """One record: typical, refused, absent."""
    call(name, args=args, check=check)
    refusals(oracle, name, args)
    queries(oracle, name, args)


def absent(name, **args):
    """What there is no counterpart for."""
    call(name, 501, why="no counterpart", args=args)


def ordered(name, by, then="id", **args):
    for field in by:
        call(name, why=f"ordered by {field}", args={**args, "order_by": [f"-{field}", then]})


def monitoring():
    one("get_health", lambda health: health.metadatabase.status == "healthy")
    one("get_version", lambda version: bool(version.version))
    listing("get_jobs", lambda jobs: jobs.total_entries >= 1)
    ordered("get_jobs", ["hostname", "latest_heartbeat"])
    listing("get_event_logs", lambda logs: logs.total_entries > 0)
    ordered("get_event_logs", ["when", "event", "dag_id"])
    first = call("get_event_logs", args={"limit": 1}).event_logs[0]
    one("get_event_log", lambda log: log.event == first.event, event_log_id=first.event_log_id)
    listing("get_import_errors", lambda errors: errors.total_entries == 1)
    broken = call("get_import_errors").import_errors[0]
    one("get_import_error", lambda e: e.filename == broken.filename, import_error_id=broken.import_error_id)
    one("get_config", lambda config: config.sections)
    one("get_config_value", section="api", option="maximum_page_limit")
    listing("get_plugins")
    one("import_errors")
    listing("get_providers")
    listing("list_dag_warnings")
    absent("login")
    absent("logout")
    absent("reparse_dag_file", file_token="x")


def dags():
    listing("get_dags", lambda page: page.total_entries >= 5)
    ordered("get_dags", ["next_dagrun", "last_run_state"], then="dag_id")
    call("get_dags", why="by tag", args={"tags": ["retail"]}, check=lambda page: [d.dag_id for d in page.dags] == [DAG])
    call("get_dags", why="by pattern", args={"dag_id_pattern": "sh_p"}, check=lambda page: len(page.dags) == 1)
    call("get_dags", why="empty", args={"dag_id_pattern": "nothing like it"}, check=lambda page: page.total_entries == 0)
    one("get_dag", lambda dag: dag.dag_id == DAG, dag_id=DAG)
    one("get_dag_details", lambda dag: dag.params is not None, dag_id=DAG)
    one("get_dag_source", lambda source: "dag_id: shop" in source.content, dag_id=DAG)
    listing("get_dag_stats")
    call("get_dag_stats", why="of one", args={"dag_ids": [DAG]}, check=lambda stats: stats.dags[0].stats)
    listing("get_dag_tags", lambda tags: "retail" in tags.tags)
    one("get_tasks", lambda tasks: len(tasks.tasks) == 6, dag_id=DAG)
    one("get_task", lambda task: task.is_mapped, dag_id=DAG, task_id="each")
    listing("get_dag_versions", lambda page: page.total_entries == 1, dag_id=DAG)
    call("get_dag_versions", why="of all", args={"dag_id": ALL}, check=lambda page: page.total_entries >= 5)
    one("get_dag_version", dag_id=DAG, version_number=1)
    paused, unpaused = m.DAGPatchBody(is_paused=True), m.DAGPatchBody(is_paused=False)
    one("patch_dag", lambda dag: dag.is_paused, dag_id="idle", dag_patch_body=paused)
    call("patch_dag", 400, why="a wrong mask",
         args={"dag_id": "idle", "dag_patch_body": paused, "update_mask": ["tags"]})
    one("patch_dags", lambda page: page.total_entries == 1, dag_id_pattern="idle", dag_patch_body=unpaused)
    call("patch_dags", why="none is named", args={"dag_patch_body": paused}, check=lambda page: not page.dags)
    call("favorite_dag", 204, args={"dag_id": DAG})
    refusals(oracle, "favorite_dag", {"dag_id": DAG})
    call("favorite_dag", 204, why="again", args={"dag_id": DAG})
    call("get_dags", why="favourites", args={"is_favorite": True}, check=lambda page: page.total_entries == 1)
    call("unfavorite_dag", 204, args={"dag_id": DAG})
    call("unfavorite_dag", 409, why="no favourite", args={"dag_id": DAG})
    refusals(oracle, "unfavorite_dag", {"dag_id": DAG})
    one("delete_dag", dag_id="doomed")


def runs():
    run_id = trigger(DAG, RUN, conf={"n": 1}, note="by the client")
    trigger_args = {"dag_id": DAG, "trigger_dag_run_post_body": m.TriggerDAGRunPostBody(logical_date=None)}
    refusals(oracle, "trigger_dag_run", trigger_args)
    bodies = {
        "a run id that is taken": (409, m.TriggerDAGRunPostBody(dag_run_id=RUN)),
        "a bad run id": (422, m.TriggerDAGRunPostBody(dag_run_id="../x y")),
        "a parameter of a wrong type": (400, m.TriggerDAGRunPostBody(conf={"n": "x"})),
        "half an interval": (422, m.TriggerDAGRunPostBody(data_interval_start=TIME)),
    }
    for why, (status, body) in bodies.items():
        call("trigger_dag_run", status, why=why, args={"dag_id": DAG, "trigger_dag_run_post_body": body})
    state = ended(DAG, run_id)
    assert "failed" in str(state), state
    quick = trigger("quick")
    ended("quick", quick)
    wait_args = {"dag_id": DAG, "dag_run_id": run_id, "interval": 1}
    refusals(oracle, "wait_dag_run_until_finished", wait_args)
    call("wait_dag_run_until_finished", why="with results", args={**wait_args, "result": ["list", "each"]},
         check=lambda last: last["results"] == {"list": ["a", "b"], "each": ["a", "b"]})
    one("get_dag_run", lambda run: run.state == "failed" and run.note == "by the client", dag_id=DAG, dag_run_id=run_id)
    listing("get_dag_runs", lambda page: page.dag_runs[0].dag_run_id == run_id, dag_id=DAG)
    call("get_dag_runs", why="of all", args={"dag_id": ALL}, check=lambda page: page.total_entries >= 2)
    call("get_dag_runs", 422, why="an unknown state", args={"dag_id": DAG, "state": ["colourful"]})
    ordered("get_dag_runs", ["logical_date", "start_date", "end_date", "duration", "run_after"], dag_id=DAG)
    pages("get_dag_runs", "dag_runs", lambda run: run.dag_run_id, dag_id=ALL)
    batch = m.DAGRunsBatchBody(dag_ids=[DAG], states=["failed"], page_limit=5, order_by="-start_date", start_date_gte=TIME)
    batch_args = {"dag_id": ALL, "dag_runs_batch_body": batch}
    call("get_list_dag_runs_batch", args=batch_args, check=lambda page: page.total_entries == 1)
    oracle_only(batch_args, "get_list_dag_runs_batch")
    call("get_list_dag_runs_batch", 400, why="an unknown order",
         args={"dag_id": ALL, "dag_runs_batch_body": m.DAGRunsBatchBody(order_by="colour")})
    one("patch_dag_run", lambda run: run.note == "seen", dag_id=DAG, dag_run_id=run_id,
        dag_run_patch_body=m.DAGRunPatchBody(note="seen"))
    call("patch_dag_run", why="masked", check=lambda run: run.state == "failed" and run.note == "again",
         args={"dag_id": DAG, "dag_run_id": run_id, "update_mask": ["note"],
               "dag_run_patch_body": m.DAGRunPatchBody(state="success", note="again")})
    # The client takes every task instance for a new task as well, and gives up: its model of the listing reads it.
    clear = {"dag_id": DAG, "dag_run_id": run_id, "dag_run_clear_body": m.DAGRunClearBody(dry_run=True)}
    call("clear_dag_run", args=clear, model=m.TaskInstanceCollectionResponse, check=lambda page: page.total_entries == 7)
    refusals(oracle, "clear_dag_run", clear)
    many = m.BulkDAGRunClearBody(dag_runs=[m.BulkDAGRunBody(dag_run_id=run_id)], dry_run=True)
    clear = {"dag_id": DAG, "bulk_dag_run_clear_body": many}
    call("clear_dag_runs", args=clear, model=m.TaskInstanceCollectionResponse, check=lambda page: page.total_entries == 7)
    refusals(oracle, "clear_dag_runs", clear)
    call("clear_dag_run", why="for good", check=lambda run: run.actual_instance.dag_run_id == quick,
         args={"dag_id": "quick", "dag_run_id": quick, "dag_run_clear_body": m.DAGRunClearBody(dry_run=False)})
    ended("quick", quick)
    call("clear_dag_runs", why="for good", check=lambda runs: runs.actual_instance.total_entries == 1,
         args={"dag_id": "quick", "bulk_dag_run_clear_body": m.BulkDAGRunClearBody(
             dag_runs=[m.BulkDAGRunBody(dag_run_id=quick)], dry_run=False)})
    ended("quick", quick)
    absent("clear_dag_run_partitions", dag_id=DAG, clear_partitions_body=m.ClearPartitionsBody())
    update = m.BulkUpdateActionBulkDAGRunBody(action="update", entities=[m.BulkDAGRunBody(dag_run_id=quick, note="bulk")])
    delete = m.BulkDeleteActionBulkDAGRunBody(action="delete", entities=[m.EntitiesInner(quick)])
    bulk("bulk_dag_runs", m.BulkBodyBulkDAGRunBody, [update], "update", dag_id="quick")
    bulk("bulk_dag_runs", m.BulkBodyBulkDAGRunBody, [delete], "delete", dag_id="quick")
    doomed = trigger("quick")
    ended("quick", doomed)
    refusals(oracle, "delete_dag_run", {"dag_id": "quick", "dag_run_id": doomed})
    call("delete_dag_run", 204, args={"dag_id": "quick", "dag_run_id": doomed})
    call("delete_dag_run", 404, why="again", args={"dag_id": "quick", "dag_run_id": doomed})


def oracle_only(args, name):
    """Only who asks: the path names nothing."""
    call(name, 401, who="nobody", why="no token", args=args)
    call(name, 401, who="stranger", why="a wrong token", args=args)


def bulk(name, body, actions, outcome, **args):
    """A bulk change of which all is done."""
    key = {"bulk_dag_runs": "bulk_body_bulk_dag_run_body", "bulk_task_instances": "bulk_body_bulk_task_instance_body",
           "bulk_pools": "bulk_body_pool_body", "bulk_variables": "bulk_body_variable_body",
           "bulk_connections": "bulk_body_connection_body"}[name]
    args = {**args, key: body(actions=[wrapped(body, action) for action in actions])}
    call(name, why=f"bulk {outcome}", args=args,
         check=lambda done: getattr(done, outcome).success and not getattr(done, outcome).errors)
    oracle_only(args, name)
    call(name, 403, who="viewer", why="a viewer", args=args)


def wrapped(body, action):
    """An action as the client wants it: in a class of its own for each kind of body."""
    return typing.get_args(body.model_fields["actions"].annotation)[0](action)


def pages(name, plural, key, **args):
    """Turns pages of two by cursor: no row twice, none left out, back to the first."""
    for order in (None, ["-start_date"], ["run_after", "-id"]):
        more = {**args, "limit": 2, **({"order_by": order} if order else {})}
        cursor, seen, before = "", [], None
        for _ in range(50):
            page = call(name, why="by cursor", args={**more, "cursor": cursor})
            if page is None:
                return
            seen += [key(row) for row in getattr(page, plural)]
            before = page.previous_cursor
            cursor = page.next_cursor
            if not cursor:
                break
        total = call(name, why="by cursor", args=args).total_entries
        if len(seen) != total or len(set(seen)) != total:
            oracle.failures.append(f"{name} ordered by {order}: {len(seen)} rows, {len(set(seen))} of them distinct, of {total}")
        if before and not getattr(call(name, why="back", args={**more, "cursor": before}), plural):
            oracle.failures.append(f"{name}: the page before the last is empty")
    call(name, 400, why="a made up cursor", args={**args, "cursor": "bm9wZQ"})


def task_instances():
    run_id = RUN
    ti = {"dag_id": DAG, "dag_run_id": run_id}
    listing("get_task_instances", lambda page: page.total_entries == 7, **ti)
    call("get_task_instances", why="of all", args={"dag_id": ALL, "dag_run_id": ALL}, check=lambda page: page.total_entries >= 7)
    call("get_task_instances", 400, why="a run of no DAG", args={"dag_id": ALL, "dag_run_id": run_id})
    call("get_task_instances", why="failed ones", check=lambda page: page.total_entries == 1,
         args={**ti, "state": ["failed"], "order_by": ["-duration"]})
    ordered("get_task_instances", ["start_date", "map_index", "logical_date", "queued_when", "state"], **ti)
    pages("get_task_instances", "task_instances", lambda row: row.id, dag_id=ALL, dag_run_id=ALL)
    batch = m.TaskInstancesBatchBody(dag_ids=[DAG], dag_run_ids=[run_id], state=["failed", None], order_by="-start_date")
    batch_args = {"dag_id": ALL, "dag_run_id": ALL, "task_instances_batch_body": batch}
    call("get_task_instances_batch", args=batch_args, check=lambda page: page.total_entries == 1)
    oracle_only(batch_args, "get_task_instances_batch")
    one("get_task_instance", lambda row: row.state == "success", **ti, task_id="list")
    call("get_task_instance", 404, why="a mapped task", args={**ti, "task_id": "each"})
    each = {**ti, "task_id": "each"}
    one("get_mapped_task_instance", lambda row: row.map_index == 1, **each, map_index=1)
    listing("get_mapped_task_instances", lambda page: page.total_entries == 2, **each)
    one("get_task_instance_dependencies", **ti, task_id="fails")
    one("get_task_instance_dependencies_by_map_index", **each, map_index=0)
    fails = {**ti, "task_id": "fails"}
    one("get_task_instance_tries", lambda tries: tries.total_entries == 2, **fails)
    one("get_mapped_task_instance_tries", **each, map_index=0)
    one("get_task_instance_try_details", lambda one: one.try_number == 1, **fails, task_try_number=1)
    one("get_mapped_task_instance_try_details", **each, map_index=0, task_try_number=1)
    one("get_log", lambda log: any("going to fail" in str(line) for line in log.content.actual_instance), **fails, try_number=2)
    call("get_log", why="of the whole", args={**fails, "try_number": 1, "full_content": True})
    call("get_log", 400, why="a bad token", args={**fails, "try_number": 1, "token": "nope"})
    one("get_extra_links", **ti, task_id="list")
    absent("get_external_log_url", **ti, task_id="list", try_number=1)
    absent("delete_task_instance", **ti, task_id="list")
    for name in ("list_task_state_store", "clear_task_state_store"):
        absent(name, **ti, task_id="list")
    for name in ("get_task_state_store", "delete_task_state_store"):
        absent(name, **ti, task_id="list", key="k")
    absent("set_task_state_store", **ti, task_id="list", key="k",
           task_state_store_body=m.TaskStateStoreBody(value=1))
    absent("patch_task_state_store", **ti, task_id="list", key="k",
           task_state_store_patch_body=m.TaskStateStorePatchBody(value=1))
    marks(ti, each, fails)
    xcoms(ti, each)


def marks(ti, each, fails):
    note, success = m.PatchTaskInstanceBody(note="looked at"), m.PatchTaskInstanceBody(new_state="success")
    one("patch_task_instance", lambda page: page.task_instances[0].note == "looked at", **fails, patch_task_instance_body=note)
    call("get_task_instance", why="its note", args=fails, check=lambda row: row.note == "looked at")
    one("patch_task_instance_dry_run", lambda page: page.total_entries == 1, **fails, patch_task_instance_body=success)
    one("patch_task_instance_by_map_index", **each, map_index=1, patch_task_instance_body=note)
    skipped = m.PatchTaskInstanceBody(new_state="skipped")
    one("patch_task_instance_dry_run_by_map_index", **each, map_index=1, patch_task_instance_body=skipped)
    group = {**ti, "group_id": "checks"}
    one("patch_task_group_instances_dry_run", lambda page: page.total_entries == 2, **group, patch_task_instance_body=skipped)
    one("patch_task_group_instances", lambda page: page.total_entries == 2, **group, patch_task_instance_body=note)
    call("patch_task_instance", 409, why="marked already", args={**ti, "task_id": "list", "patch_task_instance_body": success})
    call("patch_task_instance", 422, why="nothing to set",
         args={**fails, "patch_task_instance_body": m.PatchTaskInstanceBody()})
    body = m.ClearTaskInstancesBody(dag_run_id=ti["dag_run_id"], dry_run=True, only_failed=True,
                                    task_ids=[m.ClearTaskInstancesBodyTaskIdsInner("fails")])
    one("post_clear_task_instances", lambda page: page.total_entries == 1, dag_id=DAG, clear_task_instances_body=body)
    entity = m.BulkTaskInstanceBody(task_id="fails", note="bulk")
    update = m.BulkUpdateActionBulkTaskInstanceBody(action="update", entities=[entity])
    bulk("bulk_task_instances", m.BulkBodyBulkTaskInstanceBody, [update], "update", **ti)
    gone = m.BulkTaskInstanceBody(task_id="no_such_task", note="bulk")
    missing = m.BulkUpdateActionBulkTaskInstanceBody(action="update", entities=[gone])
    call("bulk_task_instances", why="bulk of what is not there", check=lambda done: done.update.errors[0]["status_code"] == 404,
         args={**ti, "bulk_body_bulk_task_instance_body": m.BulkBodyBulkTaskInstanceBody(
             actions=[wrapped(m.BulkBodyBulkTaskInstanceBody, missing)])})


def xcoms(ti, each):
    made = {**ti, "task_id": "list"}
    listing("get_xcom_entries", lambda page: page.total_entries == 1, **made)
    call("get_xcom_entries", why="of all", args={"dag_id": ALL, "dag_run_id": ALL, "task_id": ALL},
         check=lambda page: page.total_entries >= 3)
    one("get_xcom_entry", lambda x: x.actual_instance.value == ["a", "b"], **made, xcom_key="return_value")
    call("get_xcom_entry", why="of an instance", args={**each, "xcom_key": "return_value", "map_index": 1})
    call("create_xcom_entry", 201, args={**made, "x_com_create_body": m.XComCreateBody(key="extra", value={"n": [1, None]})})
    again = {**made, "x_com_create_body": m.XComCreateBody(key="extra", value=1)}
    call("create_xcom_entry", 409, why="again", args=again)
    refusals(oracle, "create_xcom_entry", again)
    one("update_xcom_entry", lambda x: x.value == "new", **made, xcom_key="extra", x_com_update_body=m.XComUpdateBody(value="new"))
    refusals(oracle, "delete_xcom_entry", {**made, "xcom_key": "extra"})
    call("delete_xcom_entry", 204, args={**made, "xcom_key": "extra"})
    call("delete_xcom_entry", 404, why="again", args={**made, "xcom_key": "extra"})


def approvals():
    run_id = trigger("ask")
    ti = {"dag_id": "ask", "dag_run_id": run_id, "task_id": "ask", "map_index": -1}
    until(lambda: call("get_hitl_details", why="waiting", args={"dag_id": "ask", "dag_run_id": run_id}).total_entries == 1)
    one("get_hitl_detail", lambda detail: detail.options, **ti)
    listing("get_hitl_details", lambda page: page.total_entries == 1, dag_id="ask", dag_run_id=run_id)
    call("get_hitl_details", why="of all", args={"dag_id": ALL, "dag_run_id": ALL})
    answer = m.UpdateHITLDetailPayload(chosen_options=["approve"])
    refusals(oracle, "update_hitl_detail", {**ti, "update_hitl_detail_payload": answer})
    wrong = m.UpdateHITLDetailPayload(chosen_options=["perhaps"])
    call("update_hitl_detail", 422, why="no such option", args={**ti, "update_hitl_detail_payload": wrong})
    call("update_hitl_detail", args={**ti, "update_hitl_detail_payload": answer}, check=lambda a: a.chosen_options == ["approve"])
    call("update_hitl_detail", 409, why="again", args={**ti, "update_hitl_detail_payload": answer})
    one("get_hitl_detail_try_detail", lambda detail: detail.response_received, **ti, try_number=1)
    ended("ask", run_id)


def assets():
    listing("get_assets", lambda page: page.total_entries >= 1)
    ordered("get_assets", ["name", "created_at"])
    asset = call("get_assets", args={"name_pattern": "prices"}).assets[0]
    one("get_asset", lambda a: a.name == "prices", asset_id=asset.id)
    event = m.CreateAssetEventsBody(asset_id=asset.id, extra={"by": "client"})
    call("create_asset_event", args={"create_asset_events_body": event}, check=lambda e: e.asset_id == asset.id)
    oracle_only({"create_asset_events_body": event}, "create_asset_event")
    call("create_asset_event", 404, why="no such asset",
         args={"create_asset_events_body": m.CreateAssetEventsBody(asset_id=987654321)})
    listing("get_asset_events", lambda page: page.total_entries >= 1)
    ordered("get_asset_events", ["timestamp", "source_dag_id"])
    listing("get_asset_aliases", lambda page: page.total_entries == 0)
    call("get_asset_alias", 404, why="there are none", args={"asset_alias_id": 1})
    waiting = {"dag_id": "taker", "asset_id": asset.id}
    until(lambda: call("get_dag_asset_queued_events", args={"dag_id": "taker"}).total_entries == 1)
    refusals(oracle, "get_dag_asset_queued_events", {"dag_id": "taker"})
    one("get_dag_asset_queued_event", lambda e: e.asset_id == asset.id, **waiting)
    one("get_asset_queued_events", lambda page: page.total_entries == 1, asset_id=asset.id)
    call("get_asset_queued_events", why="before", args={"asset_id": asset.id, "before": "2026-01-01T00:00:00Z"}, check=lambda p: not p.queued_events)
    for name, args in (("delete_dag_asset_queued_event", waiting), ("delete_dag_asset_queued_events", {"dag_id": "taker"}),
                       ("delete_asset_queued_events", {"asset_id": asset.id})):
        # What was forgotten may be forgotten again.
        oracle_only(args, name)
        call(name, 204, args=args)
        call(name, 403, who="viewer", why="a viewer", args=args)
    refusals(oracle, "materialize_asset", {"asset_id": asset.id})
    run = call("materialize_asset", args={"asset_id": asset.id}, check=lambda run: run.run_type == "asset_materialization")
    ended("maker", run.dag_run_id)
    one("get_upstream_asset_events", dag_id="maker", dag_run_id=run.dag_run_id)
    for name in ("list_asset_state_store", "clear_asset_state_store"):
        absent(name, asset_id=asset.id)
    for name in ("get_asset_state_store", "delete_asset_state_store"):
        absent(name, asset_id=asset.id, key="k")
    absent("set_asset_state_store", asset_id=asset.id, key="k", asset_state_store_body=m.AssetStateStoreBody(value=1))


def backfills():
    body = {"dag_id": "daily", "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-01-03T00:00:00Z", "max_active_runs": 1}
    wish = {"backfill_post_body": m.BackfillPostBody(**body)}
    call("create_backfill_dry_run", args=wish, check=lambda plan: plan.total_entries == 3)
    oracle_only(wish, "create_backfill_dry_run")
    oracle_only(wish, "create_backfill")
    call("create_backfill", 403, who="viewer", why="a viewer", args=wish)
    call("create_backfill", 404, why="no such DAG", args={"backfill_post_body": m.BackfillPostBody(**{**body, "dag_id": "none"})})
    backwards = {**body, "to_date": "2025-01-03T00:00:00Z"}
    call("create_backfill", 422, why="backwards", args={"backfill_post_body": m.BackfillPostBody(**backwards)})
    made = call("create_backfill", args=wish, check=lambda backfill: backfill.dag_id == "daily")
    call("create_backfill", 409, why="again", args=wish)
    listing("list_backfills", lambda page: page.total_entries == 1, dag_id="daily")
    ordered("list_backfills", ["created_at"], dag_id="daily")
    for name in ("get_backfill", "pause_backfill", "unpause_backfill"):
        one(name, backfill_id=made.id)
    refusals(oracle, "cancel_backfill", {"backfill_id": made.id})
    call("cancel_backfill", (200, 409), args={"backfill_id": made.id})


def pools():
    body = m.PoolBody(name="tills", slots=3, description="by the client")
    call("post_pool", 201, args={"pool_body": body}, check=lambda pool: pool.open_slots == 3)
    call("post_pool", 409, why="again", args={"pool_body": body})
    call("post_pool", 422, why="a bad name", args={"pool_body": m.PoolBody(name="no/good", slots=3)})
    oracle_only({"pool_body": body}, "post_pool")
    listing("get_pools", lambda page: page.total_entries == 2)
    ordered("get_pools", ["name", "slots"])
    one("get_pool", lambda pool: pool.slots == 3, pool_name="tills")
    one("patch_pool", lambda pool: pool.slots == 5, pool_name="tills", pool_patch_body=m.PoolPatchBody(slots=5))
    call("patch_pool", why="masked", check=lambda pool: pool.slots == 5 and pool.description == "new",
         args={"pool_name": "tills", "pool_patch_body": m.PoolPatchBody(slots=9, description="new"), "update_mask": ["description"]})
    call("delete_pool", 400, why="the default", args={"pool_name": "default_pool"})
    refusals(oracle, "delete_pool", {"pool_name": "tills"})
    call("delete_pool", 204, args={"pool_name": "tills"})
    create = m.BulkCreateActionPoolBody(action="create", entities=[m.PoolBody(name=f"p{n}", slots=n) for n in range(3)])
    update = m.BulkUpdateActionPoolBody(action="update", entities=[m.PoolBody(name="p1", slots=7)])
    delete = m.BulkDeleteActionPoolBody(action="delete", entities=[m.EntitiesInner3("p0"), m.EntitiesInner3("p1"), m.EntitiesInner3("p2")])
    for actions, outcome in (([create], "create"), ([update], "update"), ([delete], "delete")):
        bulk("bulk_pools", m.BulkBodyPoolBody, actions, outcome)


def variables():
    body = m.VariableBody(key="rate", value="1.5", description="d")
    call("post_variable", 201, args={"variable_body": body}, check=lambda variable: variable.value == "1.5")
    call("post_variable", 409, why="again", args={"variable_body": body})
    oracle_only({"variable_body": body}, "post_variable")
    listing("get_variables", lambda page: page.total_entries == 1)
    one("get_variable", lambda variable: variable.value == "1.5", variable_key="rate")
    changed = m.VariableBody(key="rate", value="2")
    one("patch_variable", lambda variable: variable.value == "2", variable_key="rate", variable_body=changed)
    call("patch_variable", 400, why="another key",
         args={"variable_key": "rate", "variable_body": m.VariableBody(key="other", value="2")})
    secret = m.VariableBody(key="api_key", value="hush")
    call("post_variable", 201, why="a secret", args={"variable_body": secret}, check=lambda variable: variable.value == "***")
    for key in ("rate", "api_key"):
        refusals(oracle, "delete_variable", {"variable_key": key})
        call("delete_variable", 204, args={"variable_key": key})
    create = m.BulkCreateActionVariableBody(action="create", entities=[m.VariableBody(key="a", value="1")])
    update = m.BulkUpdateActionVariableBody(action="update", entities=[m.VariableBody(key="a", value="2")])
    delete = m.BulkDeleteActionVariableBody(action="delete", entities=[m.EntitiesInner4("a")])
    for actions, outcome in (([create], "create"), ([update], "update"), ([delete], "delete")):
        bulk("bulk_variables", m.BulkBodyVariableBody, actions, outcome)


def connections():
    body = m.ConnectionBody(connection_id="till", conn_type="http", host="localhost", port=1, password="hush", extra='{"k": "v"}')
    call("post_connection", 201, args={"connection_body": body}, check=lambda c: c.password == "***")
    call("post_connection", 409, why="again", args={"connection_body": body})
    oracle_only({"connection_body": body}, "post_connection")
    listing("get_connections", lambda page: page.total_entries == 1)
    one("get_connection", lambda c: c.password == "***" and "v" not in str(c.extra), connection_id="till")
    changed = m.ConnectionBody(connection_id="till", conn_type="https", host="shop")
    one("patch_connection", lambda c: c.host == "shop", connection_id="till", connection_body=changed)
    call("test_connection", args={"connection_body": m.ConnectionBody(connection_id="x", conn_type="http", host="127.0.0.1", port=1)},
         check=lambda tested: tested.status is False)
    oracle_only({"connection_body": body}, "test_connection")
    refusals(oracle, "delete_connection", {"connection_id": "till"})
    call("delete_connection", 204, args={"connection_id": "till"})
    absent("create_default_connections")
    absent("get_connection_test", airflow_connection_test_token="x")
    absent("enqueue_connection_test", connection_test_request_body=m.ConnectionTestRequestBody(connection_id="x", conn_type="http"))
    create = m.BulkCreateActionConnectionBody(action="create", entities=[m.ConnectionBody(connection_id="a", conn_type="http")])
    update = m.BulkUpdateActionConnectionBody(action="update", entities=[m.ConnectionBody(connection_id="a", conn_type="ftp")])
    delete = m.BulkDeleteActionConnectionBody(action="delete", entities=[m.EntitiesInner2("a")])
    for actions, outcome in (([create], "create"), ([update], "update"), ([delete], "delete")):
        bulk("bulk_connections", m.BulkBodyConnectionBody, actions, outcome)


def until(condition, patience=30):
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(condition)
        time.sleep(0.1)


def main(summary):
    started = time.monotonic()
    sign_in()
    for part in (runs, dags, task_instances, approvals, assets, backfills, pools, variables, connections, monitoring):
        try:
            part()
        except Exception as broken:  # what the next step needed was not there: the failed case before it says why
            oracle.failures.append(f"{part.__name__} could not go on: {broken!r}")
    known = {operation.key for operation in oracle.operations.values()}
    uncalled = sorted(known - set(oracle.by_operation))
    told = {
        "operations": len(oracle.by_operation),
        "cases": oracle.cases,
        "uncalled": uncalled,
        "failures": oracle.failures,
        "seconds": round(time.monotonic() - started, 1),
        # Operations that were seen to have no counterpart.
        "absent": sorted(key for key, why in oracle.by_operation.items() if why == {"no counterpart"}),
    }
    with open(summary, "w", encoding="utf-8") as out:
        json.dump(told, out, indent=1)
    print(f"official client: {told['operations']} operations, {told['cases']} cases, {len(oracle.failures)} failures, {told['seconds']} s")
    for failure in oracle.failures:
        print(f"  {failure}")
    for key in uncalled:
        print(f"  never called: {key}")
    return 1 if oracle.failures or uncalled else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
