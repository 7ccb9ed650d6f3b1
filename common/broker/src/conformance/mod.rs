//! What every broker must do, as tests: each function takes a fresh, empty broker and panics if it misbehaves.
//!
//! [`for_each_conformance_test!`](crate::for_each_conformance_test) names them all, so that each becomes a test of its own.

mod control;
mod queues;
mod settling;
mod support;

pub use control::*;
pub use queues::*;
pub use settling::*;

/// Calls the macro given with the names of all conformance tests, separated by commas.
#[macro_export]
macro_rules! for_each_conformance_test {
    ($callback:ident) => {
        $callback! {
            messages_come_in_order_and_whole,
            headers_make_the_round_trip,
            outcomes_come_in_the_order_of_the_batch,
            a_large_batch_is_confirmed_as_a_whole,
            oversized_messages_are_refused,
            impossible_targets_are_refused,
            missing_queues_return_messages,
            depth_counts_ready_messages_and_consumers,
            purge_drops_ready_messages_only,
            expired_messages_die,
            prefetch_bounds_what_is_held,
            consumers_share_a_work_queue,
            one_consumer_of_a_shard_is_active,
            what_is_acknowledged_is_gone,
            ack_through_settles_everything_before,
            given_back_messages_come_again,
            dropping_a_consumer_gives_back,
            dead_letters_keep_body_headers_and_reason,
            dead_letters_can_be_dead_lettered_again,
            settling_twice_is_harmless,
            pause_gives_back_what_is_buffered,
            resume_goes_on_with_the_new_prefetch,
            resume_changes_the_prefetch_of_a_running_consumer,
            try_next_takes_what_is_there,
            control_reaches_one_or_all,
            control_ends_with_the_subscription,
        }
    };
}
