use super::{Counters, TriggerRule, TriggerRule as R, Verdict, Verdict::*, decide};
use rstest::rstest;

/// One letter an upstream: success, failed, upstream failed (U), skipped (K), removed; a dot has not ended.
fn counters(upstreams: &str) -> Counters {
    let mut c = Counters {
        total: upstreams.len() as i32,
        ..Counters::default()
    };
    for u in upstreams.chars() {
        match u {
            'S' => c.success += 1,
            'F' => c.failed += 1,
            'U' => c.upstream_failed += 1,
            'K' => c.skipped += 1,
            'R' => c.removed += 1,
            _ => {}
        }
    }
    c
}

#[rstest]
#[case(R::AllSuccess, &[("SS", Run), ("S.", Wait), ("F.", UpstreamFailed), ("K.", Skip), ("FK", UpstreamFailed), ("SR", Run), ("RR", Run)])]
#[case(R::AllFailed, &[("FU", Run), ("F.", Wait), ("S.", Skip), ("K.", Skip), ("FS", Skip)])]
#[case(R::AllDone, &[("SF", Run), ("S.", Wait), ("KU", Run)])]
#[case(R::OneSuccess, &[("S.", Run), ("F.", Wait), ("KK", Skip), ("FK", UpstreamFailed), ("FF", UpstreamFailed)])]
#[case(R::OneFailed, &[("F.", Run), ("U.", Run), ("S.", Wait), ("SS", Skip), ("SK", Skip)])]
#[case(R::OneDone, &[("S.", Run), ("F.", Run), ("K.", Wait), ("U.", Wait), ("KU", Skip)])]
#[case(R::NoneFailed, &[("SK", Run), ("KK", Run), ("F.", UpstreamFailed), ("S.", Wait)])]
#[case(R::NoneFailedMinOneSuccess, &[("SK", Run), ("KK", Skip), ("KR", UpstreamFailed), ("U.", UpstreamFailed), ("S.", Wait)])]
#[case(R::NoneSkipped, &[("SF", Run), ("K.", Skip), ("S.", Wait), ("FU", Run)])]
#[case(R::AllSkipped, &[("KK", Run), ("S.", Skip), ("F.", Skip), ("U.", Skip), ("K.", Wait)])]
#[case(R::Always, &[("..", Run), ("FF", Run)])]
#[case(R::AllDoneMinOneSuccess, &[("SF", Run), ("K.", Skip), ("FF", UpstreamFailed), ("S.", Wait)])]
#[case(R::AllDoneSetupSuccess, &[("SF", Run), ("S.", Wait)])]
fn decides(#[case] rule: TriggerRule, #[case] cases: &[(&str, Verdict)]) {
    for (upstreams, expected) in cases {
        assert_eq!(
            decide(rule, &counters(upstreams)),
            *expected,
            "{rule} over {upstreams:?}"
        );
    }
}

#[test]
fn teardown_looks_at_its_setups() {
    let ended = Counters {
        total: 3,
        setups: 1,
        ..Counters::default()
    };
    let setup_ok = Counters {
        success: 2,
        failed: 1,
        setup_success: 1,
        ..ended
    };
    let setup_failed = Counters {
        success: 2,
        failed: 1,
        ..ended
    };
    let setup_skipped = Counters {
        success: 2,
        skipped: 1,
        setup_skipped: 1,
        ..ended
    };
    assert_eq!(decide(R::AllDoneSetupSuccess, &setup_ok), Run);
    assert_eq!(
        decide(R::AllDoneSetupSuccess, &setup_failed),
        UpstreamFailed
    );
    assert_eq!(decide(R::AllDoneSetupSuccess, &setup_skipped), Skip);
}

/// Every combination of three upstreams' endings, in every order: with all ended each rule has decided, and a task
/// without upstreams always runs.
#[test]
fn every_rule_decides_in_the_end() {
    for (rule, name) in TriggerRule::ALL {
        assert_eq!(name.parse::<TriggerRule>(), Ok(rule));
        assert_eq!(decide(rule, &counters("")), Run, "{rule}");
        for a in "SFUKR".chars() {
            for b in "SFUKR".chars() {
                for c in "SFUKR".chars() {
                    let upstreams: String = [a, b, c].iter().collect();
                    assert_ne!(
                        decide(rule, &counters(&upstreams)),
                        Wait,
                        "{rule} over {upstreams}"
                    );
                }
            }
        }
    }
}
