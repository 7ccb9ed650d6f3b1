//! At most one live attempt of a task instance at any time, and one ending of each attempt.

use super::{
    Verdict,
    ledger::{Ledger, Live},
    rows::{Attempt, Ending, Instance, Rows},
};
use crate::workload::Workload;
use gristmill_common::{invariant::Invariant, spec::TaskKind, state::TaskState};

/// The instance of each of the ledger's names, where the database has it.
pub(super) fn located(ledger: &Ledger, rows: &Rows) -> Vec<Option<usize>> {
    ledger
        .names
        .iter()
        .map(|name| {
            let run = rows.run_of(&name.dag_id, &name.run_id)?;
            let task_idx = rows.spec(&rows.runs[run])?.idx(&name.task_id)?;
            rows.instance_of(run, task_idx, name.map_index)
        })
        .collect()
}

/// By the ledger alone: an attempt starts when all earlier ones of its instance have given their last sign of life,
/// under a fence above theirs.
pub(super) fn one_live(ledger: &Ledger, verdict: &mut Verdict) {
    let invariant = Invariant::OneLiveAttempt;
    for (name, lives) in ledger.names.iter().zip(&ledger.by_instance) {
        let mut earlier: Option<&Live> = None;
        let mut highest = 0;
        for life in lives.iter().map(|life| &ledger.lives[*life]) {
            let Live { fence, pid, .. } = life;
            if let Some(before) = earlier.filter(|before| before.last > life.start) {
                let what = format!(
                    "{name}: the attempt with fence {fence} (pid {pid}) started while the one with fence {} (pid {}) was \
                     alive: it wrote record {} of the ledger, the start is record {}",
                    before.fence, before.pid, before.last, life.start
                );
                verdict.breach(invariant, what);
            }
            if !life.met.is_empty() {
                let what = format!(
                    "{name}: when the attempt with fence {fence} (pid {pid}) started, processes {:?} of earlier attempts \
                     were alive",
                    life.met
                );
                verdict.breach(invariant, what);
            }
            if *fence <= highest {
                let what = format!(
                    "{name}: an attempt (pid {pid}) started under fence {fence} after one under fence {highest}: \
                     a dispatch ran twice, or a stale one ran"
                );
                verdict.breach(invariant, what);
            }
            highest = highest.max(*fence);
            if earlier.is_none_or(|before| before.last < life.last) {
                earlier = Some(life);
            }
        }
    }
}

/// Each attempt has one record, under a number and a fence of its own; the records are those of what ran; the last one's
/// ending is the instance's.
pub(super) fn one_ending(rows: &Rows, verdict: &mut Verdict) {
    for instance in &rows.instances {
        let attempts = rows.attempts_of(instance);
        let mut wrong = |what: String| {
            let what = format!("{}: {what}", rows.name(instance));
            verdict.breach(Invariant::OneEnding, what);
        };
        for (expected, attempt) in (1..).zip(attempts) {
            if attempt.try_number != expected {
                wrong(format!(
                    "try {expected} has no ending, the next one in the records is try {}",
                    attempt.try_number
                ));
                break;
            }
        }
        for pair in attempts.windows(2) {
            if pair[0].fence >= pair[1].fence {
                wrong(format!(
                    "tries {} and {} ended under fences {} and {}: an attempt ended twice",
                    pair[0].try_number, pair[1].try_number, pair[0].fence, pair[1].fence
                ));
            }
        }
        for attempt in attempts.iter().rev().skip(1) {
            let again = attempt.ending.is_interruption() || attempt.ending == Ending::UpForRetry;
            if !again {
                wrong(format!(
                    "try {} ended as {} and is not the last",
                    attempt.try_number,
                    attempt.ending.name()
                ));
            }
        }
        if let Some(what) = wrong_last(rows, instance, attempts.last()) {
            wrong(what);
        }
    }
}

/// What is wrong between the last record and an instance that has ended.
fn wrong_last(rows: &Rows, instance: &Instance, last: Option<&Attempt>) -> Option<String> {
    if !instance.state.is_finished() || !instance.is_visible() {
        return None;
    }
    let stopped = rows.runs[instance.run].stopped;
    let Some(last) = last else {
        // What never ran; of a run that was stopped also what was dispatched and never claimed.
        let may = instance.try_number == 0 || stopped;
        let n = instance.try_number;
        return (!may)
            .then(|| format!("try {n} has no ending, the instance is {}", instance.state));
    };
    if stopped && instance.state == TaskState::Skipped {
        return None;
    }
    if last.try_number != instance.try_number || last.fence != instance.fence {
        return Some(format!(
            "the instance ended with try {} under fence {}, its last record is of try {} under fence {}",
            instance.try_number, instance.fence, last.try_number, last.fence
        ));
    }
    let agrees = match last.ending {
        Ending::Success => instance.state == TaskState::Success,
        Ending::Skipped => instance.state == TaskState::Skipped,
        // Lost for the last time, or lost in a run that was being stopped.
        Ending::Failed | Ending::Lost => instance.state == TaskState::Failed,
        Ending::UpForRetry | Ending::Requeued => false,
    };
    (!agrees).then(|| {
        format!(
            "the last try ({}) ended as {}, the instance is {}",
            last.try_number,
            last.ending.name(),
            instance.state
        )
    })
}

/// What the ledger saw of each attempt, and what its record says of it.
pub(super) fn ledger_agrees(
    ledger: &Ledger,
    located: &[Option<usize>],
    rows: &Rows,
    verdict: &mut Verdict,
) {
    let invariant = Invariant::OneEnding;
    for life in &ledger.lives {
        let name = ledger.name_of(life);
        let fence = life.fence;
        let Some(instance) = located[life.instance] else {
            let lost = rows.run_of(&name.dag_id, &name.run_id).is_none();
            if lost {
                let what = format!("{name} ran (fence {fence}) and its run is not in the database");
                verdict.breach(Invariant::NoRunLost, what);
            } else {
                let what = format!("{name} ran (fence {fence}) and is not in the database");
                verdict.breach(invariant, what);
            }
            continue;
        };
        let instance = &rows.instances[instance];
        let record = rows.attempts_of(instance).iter().find(|a| a.fence == fence);
        let Some(record) = record else {
            let under_way = instance.fence == fence && !instance.state.is_finished();
            if !under_way {
                verdict.breach(
                    invariant,
                    format!(
                        "{name} ran under fence {fence} (pid {}) and has no ending",
                        life.pid
                    ),
                );
            }
            continue;
        };
        if let Some(what) = disagreement(life, record) {
            let n = record.try_number;
            let what = format!("{name} try {n} (fence {fence}): {what}");
            verdict.breach(invariant, what);
        }
    }
}

fn disagreement(life: &Live, record: &Attempt) -> Option<String> {
    if record.try_number != life.try_number {
        return Some(format!(
            "the task was told that it is try {}",
            life.try_number
        ));
    }
    if record.ending.is_interruption() {
        return None;
    }
    // The record of an ending tells which process it was that ended.
    if let Some(pid) = record.pid.filter(|pid| *pid != life.pid) {
        return Some(format!(
            "process {} ran and process {pid} is recorded as ended: another attempt's ending was taken",
            life.pid
        ));
    }
    match (life.code, record.exit_code) {
        (Some(code), Some(recorded)) if code != recorded => Some(format!(
            "it ended with exit code {code}, recorded is {recorded}"
        )),
        (None, _) if matches!(record.ending, Ending::Success | Ending::Skipped) => Some(format!(
            "it was killed, recorded is {}",
            record.ending.name()
        )),
        (Some(code), _) if (code == 0) != (record.ending == Ending::Success) => {
            // A run that is being stopped fails what came to its end at that instant.
            let cancelled = record.ending == Ending::Failed && record.exit_code.is_none();
            (!cancelled).then(|| {
                let ending = record.ending.name();
                format!("it ended with exit code {code}, recorded is {ending}")
            })
        }
        _ => None,
    }
}

/// Shell tasks of the workload that ended by themselves did run: each record has its start in the ledger. Torn records may
/// have been such starts, so that many may be missing.
pub(super) fn nothing_made_up(
    ledger: &Ledger,
    located: &[Option<usize>],
    rows: &Rows,
    workload: &Workload,
    verdict: &mut Verdict,
) {
    let mut seen: Vec<Vec<i64>> = vec![Vec::new(); rows.instances.len()];
    for life in &ledger.lives {
        if let Some(instance) = located[life.instance] {
            seen[instance].push(life.fence);
        }
    }
    let mut missing = Vec::new();
    for (run, instances) in rows.instances_by_run() {
        let (Some(_), Some(spec)) = (workload.dag(&run.dag_id), rows.spec(run)) else {
            continue;
        };
        for instance in instances {
            let task = spec.task(instance.task_idx);
            if !task.is_some_and(|task| matches!(task.kind, TaskKind::Shell(_))) {
                continue;
            }
            let position = rows.instance_of(instance.run, instance.task_idx, instance.map_index);
            let fences = position.map_or(&[][..], |position| &seen[position]);
            for attempt in rows.attempts_of(instance) {
                let ran = fences.contains(&attempt.fence) || attempt.ending.is_interruption();
                if !ran && attempt.exit_code.is_some() {
                    missing.push((instance, attempt));
                }
            }
        }
    }
    if missing.len() <= ledger.torn {
        return;
    }
    for (instance, attempt) in missing {
        let what = format!(
            "{} try {} (fence {}) ended as {} and never ran: the ledger has no start of it",
            rows.name(instance),
            attempt.try_number,
            attempt.fence,
            attempt.ending.name()
        );
        verdict.breach(Invariant::OneEnding, what);
    }
}
