//! What every backend must do: one suite, run against each on a real database.
//!
//! Every function below takes a fresh store and panics where the contract of [`Tx`](crate::Tx) or [`Reads`](crate::Reads)
//! is broken. None holds two transactions open in one task (a backend may have a single writer); what only a backend with
//! concurrent writers can show stands in its own tests. [`conformance_tests!`](crate::conformance_tests) makes a test of each:
//!
//! ```ignore
//! /// A fresh store (migrated or not), and what has to live as long as the test.
//! async fn fresh() -> (PgStore, Database) { … }
//! gristmill_store::conformance_tests!(crate::fresh);
//! ```

mod bed;

pub mod access;
pub mod amend;
pub mod annotations;
pub mod assets;
pub mod backfills;
pub mod calls;
pub mod candidates;
pub mod counts;
pub mod dags;
pub mod data;
pub mod limits;
pub mod listings;
pub mod outbox;
pub mod past;
pub mod reconcile;
pub mod retention;
pub mod runs;
pub mod schedules;
pub mod schema;
pub mod shared_limits;
pub mod startable;
pub mod task_instances;
pub mod waits;
pub mod writes;
pub mod xcoms;

/// One `#[tokio::test]` per function of the suite, in modules of the same names. `$fresh` is the absolute path of an
/// `async fn() -> (impl Backend, guard)`; the guard is dropped after the test.
#[macro_export]
macro_rules! conformance_tests {
    (@suite $fresh:tt $($module:ident { $($test:ident,)+ })+) => {
        $(mod $module {
            $($crate::conformance_tests! { @test $fresh $module $test })+
        })+
    };
    (@test [$($fresh:tt)+] $module:ident $test:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let (store, _guard) = $($fresh)+().await;
            $crate::conformance::$module::$test(store).await;
        }
    };
    // Last: it matches anything.
    ($($fresh:tt)+) => {
        $crate::conformance_tests! { @suite [$($fresh)+]
            access {
                users_are_kept_or_replaced, tokens_have_one_name, secrets_are_kept_by_kind, audit_is_newest_first,
                dead_letters_keep_any_bytes, heartbeats_keep_the_start,
            }
            amend {
                a_cleared_run_starts_again_and_expands_anew, a_dispatch_that_is_out_is_stopped_first,
                a_run_is_marked_and_queued_again,
            }
            annotations {
                notes_are_kept_by_instance, xcoms_are_set_by_hand, favorites_are_each_users_own, audit_entries_by_filter,
                runs_by_condition_and_order, task_instances_by_condition_and_order,
            }
            assets {
                an_update_makes_a_run_once_the_condition_holds, paused_dags_wait_for_no_assets, assets_show_their_lineage,
                what_waits_is_shown_and_forgotten, old_events_are_deleted,
            }
            backfills {
                runs_of_a_backfill_start_within_its_own_limit, dates_with_runs_are_left_out_or_made_again,
                what_cannot_be_filled_in_is_refused, a_backfill_is_paused_and_cancelled,
            }
            calls {
                calls_are_taken_by_target_and_until_a_time, an_event_and_its_calls_are_written_together,
                deadlines_are_missed_once,
            }
            candidates {
                best_priority_first_then_oldest, no_run_gives_more_than_its_room, a_full_pool_hides_nothing,
                a_pool_is_shared_by_its_slots, paused_and_full_queues_wait, limits_of_tasks_hold, only_running_runs_count,
                every_instance_is_reached_round_by_round, others_wait_outside_the_excepted,
                a_queue_without_tokens_hides_nothing,
            }
            dags {
                a_version_is_deployed_once, deploying_keeps_the_pause, due_dags_are_locked_once, paused_and_stale_dags_are_not_due,
                schedule_state_is_written, a_dag_with_unfinished_runs_stays, files_that_are_gone_make_dags_stale,
                import_errors_are_replaced_by_prefix,
            }
            data {
                the_newest_update_of_an_asset_is_found, a_sensor_waits_for_an_update, a_run_knows_the_updates_that_made_it,
                a_success_is_found_by_the_key_that_it_noted,
            }
            limits {
                rows_are_ensured_not_reset, spending_stops_at_the_cap, fifty_spenders_never_exceed_the_cap,
                limits_locked_in_any_order_do_not_deadlock, pools_are_put_and_deleted, queues_are_paused_and_capped,
                a_rate_is_spent_by_token, fifty_takers_never_exceed_the_rate, parallelism_counts_all_runs,
            }
            listings {
                dags_by_pattern_and_page, runs_newest_first, task_instances_by_filter, queues_are_counted,
                statements_are_counted,
            }
            outbox { messages_leave_by_their_fence, old_messages_are_found_oldest_first, }
            past {
                the_run_before_and_those_after_are_found_by_date, a_task_waits_for_the_run_before,
                backfills_begin_without_a_past_and_never_go_backwards,
            }
            reconcile {
                unclaimed_dispatches_are_found, a_bounced_dispatch_expires, dispatches_are_found_by_worker, workers_are_locked_and_written,
                barriers_count_shards_once, a_look_finds_what_there_is_to_do,
            }
            retention { old_runs_go_with_all_they_have, a_run_is_deleted_after_its_end, }
            runs {
                a_run_exists_once, a_scheduled_run_exists_once_per_date, a_run_keeps_its_columns, idempotency_keys_are_remembered,
                runs_asked_for_together_are_each_answered,
                runs_are_locked_in_order, runs_locked_in_any_order_do_not_deadlock, all_mutable_columns_are_written, runs_to_stop_are_found,
                a_dropped_transaction_leaves_nothing, inserting_and_ending_wake_waiters,
            }
            schedules {
                a_continuous_dag_runs_again_when_its_run_has_ended, a_dag_that_fails_in_a_row_is_paused,
                overlap_skip_makes_no_run_beside_an_active_one, overlap_cancel_stops_the_oldest,
            }
            schema { migrating_again_changes_nothing, the_clock_is_the_databases, }
            shared_limits {
                a_full_key_hides_no_other, a_key_is_shared_across_dags, who_pushes_and_who_holds, what_waits_counts_in_its_pool,
            }
            startable { runs_start_oldest_first_within_room, paused_dags_and_later_runs_wait,
                a_full_key_hides_no_other_run, }
            task_instances {
                keys_come_in_the_order_of_the_input, an_instance_keeps_its_columns, a_stale_write_writes_nothing,
                one_of_fifty_writers_wins, nodes_and_unfinished_are_loaded, due_retries_come_oldest_first, an_attempt_ends_once,
                broken_invariants_are_refused, text_with_nul_is_kept_readable,
            }
            waits {
                due_waits_come_oldest_first, ended_runs_name_who_waits_for_them, other_dags_are_looked_up_by_date,
                approvals_are_asked_listed_and_answered_once,
            }
            writes {
                runs_are_locked_with_their_instances, every_part_is_written_in_one_go, a_refused_part_stops_the_whole,
                starts_are_noted_once,
            }
            xcoms { the_newest_fence_wins, values_are_found_by_task_and_key, references_tell_of_more, sealed_secrets_are_found, }
        }
    };
}
