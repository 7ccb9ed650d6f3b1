//! The rules of `Presence`, each held against Redis and against the in-process twin.

mod moved_clock;
mod redis_only;
mod rules;
mod support;

use support::{Bed, config};

/// Makes each rule a test on the twin and on a real server: `shared` ones on a database of one server, `private` ones
/// on a server that they may kill.
macro_rules! conformance {
    (shared { $($module:ident :: { $($rule:ident),* $(,)? })* } private { $($pmodule:ident :: { $($prule:ident),* $(,)? })* }) => {
        mod memory {
            use super::*;
            $($(#[tokio::test]
            async fn $rule() {
                rules::$module::$rule(&Bed::memory(config())).await;
            })*)*
            $($(#[tokio::test]
            async fn $prule() {
                rules::$pmodule::$prule(&Bed::memory(config())).await;
            })*)*
        }
        mod redis_server {
            use super::*;
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                rules::$module::$rule(&Bed::redis(config()).await).await;
            })*)*
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $prule() {
                rules::$pmodule::$prule(&Bed::private_redis(config()).await).await;
            })*)*
        }
    };
}

conformance! {
    shared {
        leases::{
            epoch_is_positive_and_the_same_for_all,
            a_registered_worker_is_seen,
            registering_twice_is_one_lease,
            renewals_count_and_report,
            renewing_under_another_epoch_is_refused,
            an_incarnation_without_a_lease_is_unknown,
            a_revoked_incarnation_never_returns,
            a_deregistered_worker_is_gone,
            a_flush_changes_the_epoch,
            restoring_under_another_epoch_is_refused,
            restoring_again_keeps_what_was_claimed_since,
            restoring_does_not_take_what_another_holds,
            restoring_learns_of_cancels,
        }
        claims::{
            what_nobody_holds_is_sealed,
            of_a_hundred_racing_claims_one_is_granted,
            a_batch_is_answered_in_order,
            a_dispatch_twice_in_a_batch_is_granted_once,
            late_claims_are_refused,
            claims_of_another_epoch_are_refused,
            claims_without_a_lease_are_refused,
            a_record_is_reported_before_any_other_refusal,
            a_cancelled_dispatch_is_never_claimed,
            a_cancelled_holder_is_told_until_it_releases,
            a_released_claim_refuses_its_redelivery,
            only_the_holder_releases,
            each_fence_is_a_claim_of_its_own,
            after_a_flush_old_messages_are_refused,
        }
        xcoms::{
            values_are_read_back_in_order,
            values_are_named_by_fence,
            deleting_a_run_leaves_the_others,
            a_value_above_the_limit_is_refused,
        }
        logs::{
            chunks_are_read_from_a_cursor,
            a_repeated_chunk_is_ignored,
            an_unknown_log_says_so,
            the_oldest_chunks_go_first,
            a_gap_is_reported,
            a_reader_is_woken_by_a_chunk,
            a_reader_is_woken_by_the_end,
            a_wait_without_news_ends_empty,
            nothing_is_appended_after_the_end,
            bad_chunks_are_refused,
        }
    }
    private {
        leases::{
            a_restart_with_its_data_changes_the_epoch,
            a_worker_restores_after_a_restart,
            revocations_survive_a_restart_with_data,
        }
        availability::{
            away_is_unavailable_within_the_deadline_and_back,
            a_follower_sees_the_server_die,
        }
    }
}
