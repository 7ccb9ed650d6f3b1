//! Users, tokens, secrets, and the records beside them.

use super::bed::{Bed, after};
use crate::{AuditRow, Backend, StoreError, TokenRow, Tx, UserRow};
use serde_json::json;

pub async fn users_are_kept_or_replaced<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let user = |hash: &str| UserRow {
        username: "ada".to_owned(),
        password_hash: hash.to_owned(),
        role: "admin".to_owned(),
    };
    assert_eq!(bed.user("ada").await.unwrap(), None);
    assert!(bed.put_user(&user("1"), false).await.unwrap());
    assert!(!bed.put_user(&user("2"), false).await.unwrap());
    assert_eq!(bed.user("ada").await.unwrap(), Some(user("1")));
    assert!(bed.put_user(&user("3"), true).await.unwrap());
    assert_eq!(bed.users().await.unwrap(), [user("3")]);
}

pub async fn tokens_have_one_name<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let token = |hash: &str, name: &str| TokenRow {
        hash: hash.to_owned(),
        name: name.to_owned(),
        role: "user".to_owned(),
        dag_id: Some("d".to_owned()),
        expires_at: Some(after(60)),
        created_at: after(0),
    };
    let (ci, other) = (token("aa", "ci"), token("bb", "ci"));
    bed.put_token(&ci).await.unwrap();
    let taken = bed.put_token(&other).await.unwrap_err();
    assert!(matches!(taken, StoreError::Exists { .. }), "{taken}");
    assert_eq!(bed.token("aa").await.unwrap(), Some(ci.clone()));
    assert_eq!(bed.token("bb").await.unwrap(), None);
    assert_eq!(bed.tokens().await.unwrap(), [ci]);
    assert!(bed.delete_token("ci").await.unwrap());
    assert!(!bed.delete_token("ci").await.unwrap());
}

pub async fn secrets_are_kept_by_kind<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let meta = json!({ "type": "http", "zeta": 1, "alpha": 2 });
    bed.put_secret("connection", "shop", "c1", &meta)
        .await
        .unwrap();
    bed.put_secret("variable", "shop", "v1", &json!({}))
        .await
        .unwrap();
    bed.put_secret("connection", "shop", "c2", &meta)
        .await
        .unwrap();
    assert_eq!(
        bed.secret("connection", "shop").await.unwrap(),
        Some(("c2".to_owned(), meta.clone()))
    );
    assert_eq!(bed.secret("variable", "none").await.unwrap(), None);
    assert_eq!(
        bed.secrets("connection").await.unwrap(),
        [("shop".to_owned(), meta)]
    );
    assert!(bed.delete_secret("connection", "shop").await.unwrap());
    assert!(!bed.delete_secret("connection", "shop").await.unwrap());
    assert!(bed.secret("variable", "shop").await.unwrap().is_some());
}

pub async fn audit_is_newest_first<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let entry = |n: i64| AuditRow {
        at: after(n),
        actor: "ada".to_owned(),
        event: format!("e{n}"),
        dag_id: Some("d".to_owned()),
        run_id: None,
        task_id: None,
        extra: json!({ "n": n }),
    };
    let entries: Vec<AuditRow> = (0..3).map(entry).collect();
    for entry in &entries {
        bed.put_audit(entry).await.unwrap();
    }
    let page = bed.audit(2, 1).await.unwrap();
    assert_eq!(page.total, 3);
    assert_eq!(page.rows, [entries[1].clone(), entries[0].clone()]);
    // The oldest go first, a few at a time, and none that is younger.
    assert_eq!(bed.delete_audits(entries[2].at, 1).await.unwrap(), 1);
    assert_eq!(bed.delete_audits(entries[2].at, 9).await.unwrap(), 1);
    assert_eq!(bed.delete_audits(entries[2].at, 9).await.unwrap(), 0);
    assert_eq!(bed.audit(9, 0).await.unwrap().rows, [entries[2].clone()]);
}

pub async fn dead_letters_keep_any_bytes<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    let mut tx = bed.tx().await;
    tx.put_dead_letter("events.0", "not JSON", b"a\0\xff{")
        .await
        .unwrap();
    tx.put_dead_letter("events.1", "nul \0 in it", b"{}")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let letters = bed.dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(
        (letters[0].source.as_str(), letters[0].body.as_str()),
        ("events.1", "{}")
    );
    assert_eq!(
        (letters[1].reason.as_str(), letters[1].body.as_str()),
        ("not JSON", "a\0\u{fffd}{")
    );
    assert_eq!(bed.dead_letters(1).await.unwrap().len(), 1);
}

pub async fn heartbeats_keep_the_start<B: Backend>(store: B) {
    let bed = Bed::new(store).await;
    bed.heartbeat("scheduler", "s1", "host-a").await.unwrap();
    let first = bed.components().await.unwrap().remove(0);
    bed.heartbeat("scheduler", "s1", "host-b").await.unwrap();
    let all = bed.components().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].started_at, all[0].hostname.as_str()),
        (first.started_at, "host-b")
    );
    assert!(all[0].heartbeat_at >= first.heartbeat_at);
}
