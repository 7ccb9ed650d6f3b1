//! Names at the broker, and the rules for the parts that users choose. Both implementations go by them.

use crate::error::{BrokerError, PublishFailure};
use crate::message::{ControlTarget, MAX_BODY_BYTES, Publication, Source, Target};

/// The fanout exchange in front of the dead queue; also the dead-letter exchange of every work queue.
pub(crate) const DEAD_EXCHANGE: &str = "gm.dead";
/// The dead queue.
pub(crate) const DEAD_QUEUE: &str = "gm.dead";
/// The direct exchange of control messages.
pub(crate) const CONTROL_EXCHANGE: &str = "gm.control";
/// The routing key of control messages for all workers.
pub(crate) const CONTROL_ALL: &str = "all";
/// On a dead message: why it was moved there by [`Consumer::dead_letter`](crate::Consumer::dead_letter).
pub(crate) const HEADER_DEATH_REASON: &str = "gm-death-reason";
/// On a dead message: the queue (as named at the broker) it was moved from.
pub(crate) const HEADER_DEATH_QUEUE: &str = "gm-death-queue";

const WORK_PREFIX: &str = "gm.work.";
const EVENTS_PREFIX: &str = "gm.events.";
/// AMQP names have at most 255 bytes; this leaves room for the prefix.
const MAX_NAME_BYTES: usize = 200;
/// Content headers must fit into one AMQP frame (128 KiB by default); ids need a fraction of this.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The name of a queue at the broker.
pub(crate) fn queue_name(source: &Source) -> String {
    match source {
        Source::Work(queue) => format!("{WORK_PREFIX}{queue}"),
        Source::Events(shard) => format!("{EVENTS_PREFIX}{shard}"),
        Source::Dead => DEAD_QUEUE.to_owned(),
    }
}

/// The queue behind a name at the broker, if it is one of ours.
pub(crate) fn source_of_queue_name(name: &str) -> Option<Source> {
    if name == DEAD_QUEUE {
        return Some(Source::Dead);
    }
    if let Some(queue) = name.strip_prefix(WORK_PREFIX) {
        return Some(Source::Work(queue.to_owned()));
    }
    let shard = name.strip_prefix(EVENTS_PREFIX)?;
    shard.parse().ok().map(Source::Events)
}

/// The routing key under which one worker's control queue is bound.
pub(crate) fn control_key(incarnation: &str) -> String {
    format!("worker.{incarnation}")
}

/// Checks a name that is to become part of a queue name or routing key.
pub(crate) fn check_name(name: &str) -> Result<(), BrokerError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "it has more than 200 bytes"
    } else if name.chars().any(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(BrokerError::InvalidQueueName {
        name: name.to_owned(),
        reason,
    })
}

/// Checks that a source can exist.
pub(crate) fn check_source(source: &Source, shards: u32) -> Result<(), BrokerError> {
    match source {
        Source::Work(queue) => check_name(queue),
        Source::Events(shard) if *shard >= shards => Err(BrokerError::NoSuchShard {
            shard: *shard,
            shards,
        }),
        Source::Events(_) | Source::Dead => Ok(()),
    }
}

/// Checks a publication against the limits that hold for every broker.
pub(crate) fn check_publication(
    publication: &Publication,
    shards: u32,
) -> Result<(), PublishFailure> {
    let bytes = publication.body.len();
    if publication.target.is_limited() && bytes > MAX_BODY_BYTES {
        return Err(PublishFailure::TooLarge {
            bytes,
            limit: MAX_BODY_BYTES,
        });
    }
    match &publication.target {
        Target::Work(queue) => check_name(queue),
        Target::Control(ControlTarget::Worker { incarnation }) => check_name(incarnation),
        Target::Events(shard) => check_source(&Source::Events(*shard), shards),
        Target::Control(ControlTarget::AllWorkers) | Target::Dead => Ok(()),
    }
    .map_err(|error| PublishFailure::Invalid(error.to_string()))?;

    let mut header_bytes = 0;
    for (name, value) in &publication.headers {
        if name.len() > MAX_NAME_BYTES {
            return Err(PublishFailure::Invalid(format!(
                "the header name `{name}` has more than {MAX_NAME_BYTES} bytes"
            )));
        }
        header_bytes += name.len() + value.as_str().map_or(8, str::len);
    }
    if header_bytes > MAX_HEADER_BYTES {
        return Err(PublishFailure::Invalid(format!(
            "the headers have {header_bytes} bytes, the limit is {MAX_HEADER_BYTES}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_names_are_reversible() {
        for source in [
            Source::Work("gpu.large".into()),
            Source::Events(3),
            Source::Dead,
        ] {
            assert_eq!(source_of_queue_name(&queue_name(&source)), Some(source));
        }
        assert_eq!(source_of_queue_name("somebody-elses"), None);
        assert_eq!(source_of_queue_name("gm.events.x"), None);
    }

    #[test]
    fn bad_publications_are_refused_with_the_reason() {
        let at_limit = Publication::new(Target::Events(0), vec![0; MAX_BODY_BYTES]);
        assert_eq!(check_publication(&at_limit, 1), Ok(()));
        let over = Publication::new(Target::Events(0), vec![0; MAX_BODY_BYTES + 1]);
        assert!(matches!(
            check_publication(&over, 1),
            Err(PublishFailure::TooLarge { bytes: 65_537, .. })
        ));
        let dead = Publication::new(Target::Dead, vec![0; MAX_BODY_BYTES + 1]);
        assert_eq!(check_publication(&dead, 1), Ok(()));
        let invalid = |publication| {
            assert!(matches!(
                check_publication(&publication, 2),
                Err(PublishFailure::Invalid(_))
            ));
        };
        invalid(Publication::new(Target::Events(2), ""));
        invalid(Publication::new(Target::Work(String::new()), ""));
        invalid(Publication::new(Target::Work("a\nb".into()), ""));
        invalid(Publication::new(Target::Work("q".repeat(201)), ""));
        invalid(Publication::new(Target::Dead, "").with_header("h".repeat(201), 1));
        invalid(Publication::new(Target::Dead, "").with_header("h", "v".repeat(17_000)));
    }
}
