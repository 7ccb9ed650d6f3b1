//! The model can fail: each rule of the protocol that is broken shows in a property that does not hold any more.

use gristmill_common::invariant::Invariant::{self, *};
use gristmill_model::{
    graph::{Report, search},
    model::Deployment,
    rules::{Rule, Rules},
    setups,
};

fn without(rules: &[Rule], setup: &str) -> Report {
    search(&Deployment {
        rules: Rules::without(rules),
        ..setups::named(setup).expect("a quick setup")
    })
}

/// A rule, where its absence shows, and in what.
const NEEDED: &[(Rule, &str, Invariant)] = &[
    (Rule::FenceOfEvents, "clear and duplicates", OneEnding),
    (Rule::ClaimOnce, "cancel and duplicates", OneLiveAttempt),
    (Rule::EpochOfClaims, "cancel and flush", EndingsRight),
    (Rule::AckAfterClaim, "clear and loss", NoRunLost),
    (Rule::RunOnce, "cancel and duplicates", OneEnding),
    (
        Rule::HeldUntilConfirmed,
        "Redis and RabbitMQ away",
        EveryRunEnds,
    ),
    (Rule::GiveBackUnknown, "lost answers", EveryRunEnds),
    (Rule::KillAtDeadline, "two instances, one slot", OneEnding),
    (Rule::DeadlineFromSend, "slow answers", OneEnding),
    (Rule::EndWithLease, "pause and flush", OneEnding),
    (Rule::RestoreClaims, "cancel and flush", OneEnding),
    (Rule::RestoreAgain, "cancel and flush", OneEnding),
    (Rule::JudgeMargin, "two instances, one slot", OneEnding),
    (Rule::JudgeHeedsGrants, "Redis and RabbitMQ away", OneEnding),
    (Rule::JudgeBarrier, "clear and loss", EndingsRight),
    (Rule::SlotsUntilProof, "clear one of two", LimitsHold),
    (Rule::Seal, "late and duplicates", EndingsRight),
    (Rule::ResendBarrier, "cancel and flush", EndingsRight),
    (Rule::CompleteRecord, "cancel and flush", OneEnding),
    (Rule::CompleteHeedsGrants, "cut off and flush", OneEnding),
    (Rule::CompleteInOneEpoch, "cancel and flush", EndingsRight),
    (Rule::CancelNeedsProof, "cancel and flush", EndingsRight),
    (Rule::CancelBarrier, "cancel and flush", EndingsRight),
    (
        Rule::OutboxUntilConfirmed,
        "cancel and duplicates",
        NoRunLost,
    ),
    (Rule::AckAfterCommit, "cancel and duplicates", EveryRunEnds),
    (Rule::ClearWaits, "clear and duplicates", OneLiveAttempt),
    (Rule::ClearTakesFence, "clear and duplicates", OneEnding),
];

/// Rules that another one makes unnecessary as far as the model sees: an incarnation that ends with its lease cannot come
/// back for what the judge has given up. Where it could, they would be needed.
const SECOND_LINE: &[(Rule, &str, Invariant)] = &[
    (Rule::LostGetsNoGrant, "cut off and paused", OneEnding),
    (Rule::Revoke, "two instances, one slot", OneEnding),
    (Rule::WaitIfMoved, "two instances, one slot", OneEnding),
    (Rule::JudgeInOneEpoch, "pause and flush", OneEnding),
];

#[test]
fn every_rule_is_tried() {
    for rule in Rule::ALL {
        let tried = NEEDED
            .iter()
            .chain(SECOND_LINE)
            .filter(|(known, ..)| *known == rule);
        assert_eq!(tried.count(), 1, "{rule:?}");
    }
}

#[test]
fn a_broken_rule_shows() {
    let mut wrong = Vec::new();
    for &(rule, setup, invariant) in NEEDED {
        let found = without(&[rule], setup).counterexample;
        if found.as_ref().map(|found| found.invariant) != Some(invariant) {
            wrong.push((
                rule,
                setup,
                invariant,
                found.map(|found| (found.invariant, found.actions)),
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_second_line_shows_when_the_first_is_gone() {
    let mut wrong = Vec::new();
    for &(rule, setup, invariant) in SECOND_LINE {
        let with_first = without(&[rule], setup).counterexample;
        let found = without(&[rule, Rule::EndWithLease], setup).counterexample;
        let found = found.map(|found| found.invariant);
        if with_first.is_some() || found != Some(invariant) {
            wrong.push((rule, setup, with_first.map(|found| found.invariant), found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
