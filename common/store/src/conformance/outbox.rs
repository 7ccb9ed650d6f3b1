//! Messages on their way to the broker.

use super::bed::{Bed, after};
use crate::{Backend, Tx};
use gristmill_common::{
    ids::{Dispatch, Fence, RunPk, TiPk},
    row::OutboxRow,
};
use std::time::Duration;

fn message(ti: i64, fence: i64) -> OutboxRow {
    OutboxRow {
        run: RunPk(1),
        dispatch: Dispatch {
            ti: TiPk(ti),
            fence: Fence(fence),
        },
        queue: "default".to_owned(),
        body: format!("{{\"ti\":{ti}}}"),
        epoch: 4,
        claim_by: after(60),
        priority: 3,
    }
}

async fn insert<B: Backend>(bed: &Bed<B>, rows: &[OutboxRow]) {
    let mut tx = bed.tx().await;
    tx.insert_outbox(rows).await.unwrap();
    tx.commit().await.unwrap();
}

pub async fn messages_leave_by_their_fence<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let rows = [message(1, 1), message(1, 2), message(2, 1)];
    insert(&bed, &rows).await;
    insert(&bed, &[]).await;
    let mut tx = bed.tx().await;
    let stale = Dispatch {
        ti: TiPk(2),
        fence: Fence(9),
    };
    tx.delete_outbox(&[rows[0].dispatch, stale]).await.unwrap();
    tx.delete_outbox(&[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bed.unpublished(Duration::ZERO, 10).await.unwrap().len(), 2);
    bed.confirm_published(&[rows[2].dispatch]).await.unwrap();
    bed.confirm_published(&[rows[2].dispatch]).await.unwrap();
    assert_eq!(
        bed.unpublished(Duration::ZERO, 10).await.unwrap(),
        [rows[1].clone()]
    );
    let mut tx = bed.tx().await;
    assert!(
        tx.insert_outbox(&[rows[1].clone()]).await.is_err(),
        "one message per dispatch"
    );
}

pub async fn old_messages_are_found_oldest_first<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    assert_eq!(bed.outbox_oldest_age().await.unwrap(), None);
    let rows: Vec<OutboxRow> = [9, 3, 7].map(|ti| message(ti, 1)).into();
    for row in &rows {
        insert(&bed, std::slice::from_ref(row)).await;
    }
    assert_eq!(
        bed.unpublished(Duration::from_secs(60), 10).await.unwrap(),
        []
    );
    assert_eq!(bed.unpublished(Duration::ZERO, 10).await.unwrap(), rows);
    assert_eq!(bed.unpublished(Duration::ZERO, 2).await.unwrap(), rows[..2]);
    assert!(bed.outbox_oldest_age().await.unwrap().unwrap() < Duration::from_secs(30));
}
