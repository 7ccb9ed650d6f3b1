//! What is asked of people: Airflow's `HITLDetail`.

use super::{task_instance::task_instance, time, time_or_null};
use gristmill_common::row::{RunRow, TiRow};
use gristmill_store::{ApprovalRow, VersionRow};
use serde_json::{Value, json};

fn user(name: &str) -> Value {
    json!({ "id": name, "name": name })
}

fn chosen(asked: &ApprovalRow) -> Option<[&String; 1]> {
    asked.answer.as_ref().map(|answer| [answer])
}

/// `HITLDetail`, with when the time is over beside it.
pub(crate) fn detail(asked: &ApprovalRow, row: &TiRow, run: &RunRow, of: &VersionRow) -> Value {
    // The first line is the subject.
    let (subject, body) = match asked.prompt.split_once('\n') {
        Some((subject, body)) => (subject, Some(body)),
        None => (asked.prompt.as_str(), None),
    };
    let subject = if subject.is_empty() {
        &row.task_id
    } else {
        subject
    };
    json!({
        "task_instance": task_instance(row, run, of),
        "options": asked.options,
        "subject": subject,
        "body": body,
        "defaults": asked.default.as_ref().map(|default| [default]),
        "multiple": false,
        "params": {},
        "assigned_users": asked.who.iter().map(|name| user(name)).collect::<Vec<_>>(),
        "created_at": time(asked.created_at),
        "due_at": time_or_null(asked.due_at),
        "try_number": asked.try_number,
        "response_received": asked.answer.is_some(),
        "responded_by_user": asked.answered_by.as_deref().map(user),
        "responded_at": time_or_null(asked.answered_at),
        "chosen_options": chosen(asked),
        "params_input": {},
    })
}

/// `HITLDetailResponse`.
pub(crate) fn response(asked: &ApprovalRow) -> Value {
    json!({
        "responded_by": asked.answered_by.as_deref().map(user),
        "responded_at": time_or_null(asked.answered_at),
        "chosen_options": chosen(asked),
        "params_input": {},
    })
}
