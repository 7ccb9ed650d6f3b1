//! A run as a JUnit report: the DAG is a suite, each task instance a case.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::super::exit::CommandError;
use super::super::report::Report;
use crate::client::Instance;

/// The report's XML. Failed tasks are failures, with their last lines if these are known; what did not run is skipped, what
/// has not ended is an error.
pub(super) fn report(report: &Report, instances: &[Instance]) -> Result<String, CommandError> {
    let run = &report.run;
    let mut suite = TestSuite::new(run.dag_id.as_str());
    suite.set_time(seconds(run.seconds()));
    if let Some(start) = run.start_date {
        suite.set_timestamp(start.fixed_offset());
    }
    suite.add_property(("dag_run_id", run.dag_run_id.as_str()));
    suite.add_property(("state", report.state()));
    suite.add_test_cases(instances.iter().map(|instance| case(report, instance)));
    let mut junit = Junit::new("gristmill");
    junit.set_time(seconds(run.seconds()));
    junit.add_test_suite(suite);
    junit
        .to_string()
        .map_err(|error| CommandError::Output(std::io::Error::other(error)))
}

fn case(report: &Report, instance: &Instance) -> TestCase {
    let mut case = TestCase::new(instance.label(), status(report, instance));
    case.set_classname(report.run.dag_id.as_str());
    case.set_time(seconds(instance.duration));
    if let Some(start) = instance.start_date {
        case.set_timestamp(start.fixed_offset());
    }
    case.add_property(("tries", instance.try_number.to_string().as_str()));
    case
}

fn status(report: &Report, instance: &Instance) -> TestCaseStatus {
    let state = instance.state();
    let reason = instance.reason.as_deref().unwrap_or(state);
    match state {
        "success" => TestCaseStatus::success(),
        "failed" => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason).set_type(state);
            let mut known = report.failures.iter();
            if let Some(failure) = known.find(|failure| failure.is_of(instance)) {
                status.set_description(failure.lines.join("\n"));
            }
            status
        }
        "skipped" | "upstream_failed" | "removed" => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason).set_type(state);
            status
        }
        _ => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status
                .set_message(format!("has not ended: {reason}"))
                .set_type(state);
            status
        }
    }
}

fn seconds(seconds: Option<f64>) -> Duration {
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or_default()
}
