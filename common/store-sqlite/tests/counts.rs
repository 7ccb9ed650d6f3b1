//! What the way of a task costs: a regression gate that counts, and never times.

mod support;

use gristmill_store::conformance::counts;

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_is_two_transactions() {
    let (store, _folder) = support::store().await;
    let (statements, transactions) = counts::of_a_hop(store).await;
    assert!(statements <= 14, "{statements} statements");
    assert_eq!(transactions, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_costs_statements_by_batch_not_by_task() {
    let (store, _folder) = support::store().await;
    let (statements, transactions) = counts::of_a_fan_out(store, 500, 50).await;
    assert!(statements <= 350, "{statements} statements per 1000 tasks");
    assert!(
        transactions <= 60,
        "{transactions} transactions per 1000 tasks"
    );
}
