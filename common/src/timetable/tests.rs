use super::*;
use rstest::rstest;
use serde_json::{Value, json};

mod conformance;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn table(mut spec: Value) -> Timetable {
    spec["dag_id"] = json!("d");
    spec["tasks"] = json!([]);
    let spec: DagSpec = serde_json::from_value(spec).unwrap();
    Timetable::of(&spec, at("2026-01-15T10:00:00Z"))
        .unwrap()
        .unwrap()
}

/// Local times at which a cron expression fires after an instant, with their offsets.
fn ticks(cron: &str, timezone: &str, after: &str, n: usize) -> Vec<String> {
    let timezone: chrono_tz::Tz = timezone.parse().unwrap();
    let ticks = CronTicks::new(cron, timezone).unwrap();
    std::iter::successors(ticks.after(at(after)), |tick| ticks.after(*tick))
        .take(n)
        .map(|tick| {
            tick.with_timezone(&timezone)
                .format("%d %H:%M %z")
                .to_string()
        })
        .collect()
}

#[rstest]
// Spring: 02:00 becomes 03:00 on 8 March. The skipped 02:30 fires an hour later, once.
#[case("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", &["08 03:30 -0400", "09 02:30 -0400"])]
#[case("30 2,3 * * *", "America/New_York", "2026-03-07T12:00:00Z", &["08 03:30 -0400", "09 02:30 -0400"])]
#[case("*/30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", &["08 03:00 -0400", "08 03:30 -0400", "09 02:00 -0400"])]
// … also when asked from within the hour after the jump.
#[case("30 2 * * *", "America/New_York", "2026-03-08T07:10:00Z", &["08 03:30 -0400", "09 02:30 -0400"])]
// Every hour means every hour: none is left out.
#[case("0 * * * *", "America/New_York", "2026-03-08T05:30:00Z", &["08 01:00 -0500", "08 03:00 -0400", "08 04:00 -0400"])]
// Autumn: 02:00 becomes 01:00 on 1 November. The doubled 01:30 fires once.
#[case("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", &["01 01:30 -0500", "02 01:30 -0500"])]
#[case("30 0,1 * * *", "America/New_York", "2026-10-31T12:00:00Z", &["01 00:30 -0400", "01 01:30 -0500", "02 00:30 -0500"])]
#[case("30 * * * *", "America/New_York", "2026-11-01T04:00:00Z", &["01 00:30 -0400", "01 01:30 -0400", "01 01:30 -0500", "01 02:30 -0500"])]
#[case("*/20 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", &["25 02:40 +0200", "25 02:00 +0100", "25 02:20 +0100"])]
#[case("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", &["29 03:30 +0200", "30 02:30 +0200"])]
#[case("0 9 * * 1", "Europe/London", "2026-03-24T00:00:00Z", &["30 09:00 +0100", "06 09:00 +0100"])]
// Half an hour of change.
#[case("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", &["04 02:45 +1100", "05 02:15 +1100"])]
// A zone that skipped a whole day (30 December 2011).
#[case("0 12 * * *", "Pacific/Apia", "2011-12-29T10:00:00Z", &["29 12:00 -1000", "31 12:00 +1400"])]
#[case("0 2 * * *", "Asia/Seoul", "2026-01-01T00:00:00Z", &["02 02:00 +0900", "03 02:00 +0900"])]
// Six fields: the last is seconds. `L`: the last day; `#`: the nth weekday.
#[case("0 12 L * *", "UTC", "2026-02-01T00:00:00Z", &["28 12:00 +0000", "31 12:00 +0000"])]
#[case("0 12 * * 5#2", "UTC", "2026-02-01T00:00:00Z", &["13 12:00 +0000", "13 12:00 +0000"])]
#[case("0 0 1 * 1", "UTC", "2026-01-01T01:00:00Z", &["05 00:00 +0000", "12 00:00 +0000", "19 00:00 +0000", "26 00:00 +0000", "01 00:00 +0000"])]
fn cron_ticks(
    #[case] cron: &str,
    #[case] timezone: &str,
    #[case] after: &str,
    #[case] expected: &[&str],
) {
    assert_eq!(
        ticks(cron, timezone, after, expected.len()),
        expected,
        "{cron} in {timezone}"
    );
}

#[test]
fn seconds_are_the_sixth_field() {
    let ticks = CronTicks::new("* * * * * */20", chrono_tz::UTC).unwrap();
    assert_eq!(
        ticks.after(at("2026-01-01T00:00:05Z")),
        Some(at("2026-01-01T00:00:20Z"))
    );
}

/// `before` is the inverse of `after`, over every clock change of a year in zones of all kinds.
#[rstest]
#[case("30 2 * * *")]
#[case("*/30 1-3 * * *")]
#[case("15,40 1,2 * * *")]
#[case("0 * * * *")]
#[case("0 0 * * *")]
fn before_inverts_after(#[case] cron: &str) {
    for zone in [
        "America/New_York",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "America/Sao_Paulo",
        "Africa/Casablanca",
        "UTC",
    ] {
        let ticks = CronTicks::new(cron, zone.parse().unwrap()).unwrap();
        let mut tick = ticks.after(at("2026-01-01T00:00:00Z")).unwrap();
        for _ in 0..3_000 {
            let next = ticks.after(tick).unwrap();
            assert!(next > tick, "{zone} {tick}");
            assert_eq!(
                ticks.before(next),
                Some(tick),
                "{cron} in {zone} before {next}"
            );
            let between = tick + (next - tick) / 2;
            assert_eq!(
                ticks.after(between),
                Some(next),
                "{cron} in {zone} after {between}"
            );
            assert_eq!(
                ticks.before(between),
                Some(tick),
                "{cron} in {zone} before {between}"
            );
            tick = next;
            if tick > at("2027-01-01T00:00:00Z") {
                break;
            }
        }
    }
}

#[rstest]
#[case("61 * * * *")]
#[case("* * * *")]
#[case("* * * * * * *")]
#[case("every day")]
#[case("")]
#[case("0 0 30 2 *")]
#[case("@daily")]
fn bad_cron_is_refused(#[case] expression: &str) {
    assert!(check_cron(expression).is_err(), "{expression}");
}

#[test]
fn presets_are_cron() {
    for (name, expression) in PRESETS {
        assert_eq!(check_cron(expression), Ok(()), "{name}");
    }
}

#[test]
fn a_run_carries_the_interval_before_its_tick() {
    let table = table(
        json!({"schedule": {"cron": "0 2 * * *"}, "timezone": "Asia/Seoul", "start_date": "2025-12-31T15:00:00Z"}),
    );
    let run = table.next_after(None, at("2026-01-02T00:00:00Z")).unwrap();
    assert_eq!(run.interval_start, at("2025-12-31T17:00:00Z"));
    assert_eq!(run.run_after, at("2026-01-01T17:00:00Z"));
    assert_eq!(
        (run.logical_date, run.interval_end),
        (run.interval_start, run.run_after)
    );
    let exact = Timetable {
        interval: DataInterval::None,
        ..table
    };
    let run = exact.next_after(None, at("2025-12-01T00:00:00Z")).unwrap();
    assert_eq!(
        [
            run.logical_date,
            run.interval_start,
            run.interval_end,
            run.run_after
        ],
        [at("2025-12-31T17:00:00Z"); 4]
    );
}

#[test]
fn catchup_makes_every_run_and_without_it_the_latest() {
    let spec = json!({"schedule": {"cron": "0 0 * * *"}, "start_date": "2026-01-01T00:00:00Z", "end_date": "2026-01-05T00:00:00Z"});
    let mut table = table(spec);
    let now = at("2026-01-04T12:00:00Z");
    assert_eq!(
        table.next_after(None, now).unwrap().logical_date,
        at("2026-01-03T00:00:00Z")
    );
    assert_eq!(
        table
            .next_after(Some(at("2026-01-04T00:00:00Z")), now)
            .unwrap()
            .run_after,
        at("2026-01-05T00:00:00Z")
    );
    table.catchup = true;
    let mut last = None;
    let mut days = Vec::new();
    while let Some(run) = table.next_after(last, now) {
        days.push(run.logical_date.format("%d").to_string());
        last = Some(run.run_after);
    }
    assert_eq!(days, ["01", "02", "03", "04", "05"]);
}

#[test]
fn without_a_start_date_the_first_tick_after_the_deployment_is_the_first() {
    let table = table(json!({"schedule": {"cron": "0 0 * * *"}}));
    let run = table.next_after(None, at("2026-01-15T11:00:00Z")).unwrap();
    assert_eq!(
        (run.logical_date, run.run_after),
        (at("2026-01-15T00:00:00Z"), at("2026-01-16T00:00:00Z"))
    );
    // Asked again later, it is still due.
    assert_eq!(
        table.next_after(None, at("2026-01-16T08:00:00Z")),
        Some(run)
    );
}

#[test]
fn every() {
    let every = table(json!({"schedule": {"every": "15m"}}));
    assert_eq!(
        every
            .next_after(None, at("2026-01-15T10:01:00Z"))
            .unwrap()
            .run_after,
        at("2026-01-15T10:15:00Z")
    );
    assert_eq!(
        every
            .next_after(None, at("2026-01-15T11:50:00Z"))
            .unwrap()
            .run_after,
        at("2026-01-15T11:45:00Z")
    );
    let anchored = table(
        json!({"schedule": {"every": "1d"}, "start_date": "2026-01-01T08:30:00Z", "catchup": true}),
    );
    let run = anchored
        .next_after(None, at("2026-02-01T00:00:00Z"))
        .unwrap();
    assert_eq!(
        (run.logical_date, run.run_after),
        (at("2026-01-01T08:30:00Z"), at("2026-01-02T08:30:00Z"))
    );
    assert_eq!(
        anchored.tick_before(at("2026-01-01T08:30:00Z")),
        Some(at("2025-12-31T08:30:00Z"))
    );
}

#[test]
fn once() {
    let once = table(json!({"schedule": "once", "start_date": "2026-03-01T00:00:00Z"}));
    let run = once.next_after(None, at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(
        (run.logical_date, run.run_after),
        (at("2026-03-01T00:00:00Z"), at("2026-03-01T00:00:00Z"))
    );
    assert_eq!(
        once.next_after(Some(run.run_after), at("2026-04-01T00:00:00Z")),
        None
    );
    let undated = table(json!({"schedule": "once"}));
    assert_eq!(
        undated
            .next_after(None, at("2026-02-01T00:00:00Z"))
            .unwrap()
            .run_after,
        at("2026-01-15T10:00:00Z")
    );
}

#[test]
fn backfills_and_runs_by_hand() {
    let table = table(json!({"schedule": {"cron": "0 0 * * *"}}));
    let runs: Vec<_> = table
        .runs_between(at("2025-06-01T00:00:00Z"), at("2025-06-03T00:00:00Z"))
        .collect();
    assert_eq!(runs.len(), 3);
    assert_eq!(runs[2].run_after, at("2025-06-04T00:00:00Z"));
    let interval = table.manual_interval(at("2026-05-05T17:00:00Z"));
    assert_eq!(
        interval,
        (at("2026-05-04T00:00:00Z"), at("2026-05-05T00:00:00Z"))
    );
}

#[test]
fn manual_dags_have_none_and_zero_is_refused() {
    let spec = |schedule: Value| -> DagSpec {
        serde_json::from_value(json!({"dag_id": "d", "tasks": [], "schedule": schedule})).unwrap()
    };
    assert!(
        Timetable::of(&spec(json!("manual")), at("2026-01-01T00:00:00Z"))
            .unwrap()
            .is_none()
    );
    assert!(Timetable::of(&spec(json!({"every": "0s"})), at("2026-01-01T00:00:00Z")).is_err());
}

#[rstest]
#[case("2026-01-01", "Asia/Seoul", Some("2025-12-31T15:00:00Z"))]
#[case("2026-01-01 08:30", "UTC", Some("2026-01-01T08:30:00Z"))]
#[case("2026-01-01T08:30:15", "UTC", Some("2026-01-01T08:30:15Z"))]
#[case("2026-01-01T08:30:15+09:00", "UTC", Some("2025-12-31T23:30:15Z"))]
#[case("2026-03-08 02:30", "America/New_York", Some("2026-03-08T07:30:00Z"))]
#[case("2026-13-01", "UTC", None)]
#[case("yesterday", "UTC", None)]
fn dates(#[case] text: &str, #[case] timezone: &str, #[case] expected: Option<&str>) {
    assert_eq!(
        parse_date(text, timezone.parse().unwrap()),
        expected.map(at)
    );
}

/// Run times of a schedule, as many as asked for.
fn run_times(spec: Value, n: usize) -> Vec<DateTime<Utc>> {
    let table = table(spec);
    let now = at("2100-01-01T00:00:00Z");
    std::iter::successors(table.next_after(None, now), |run| {
        table.next_after(Some(run.run_after), now)
    })
    .take(n)
    .map(|run| run.run_after)
    .collect()
}

#[test]
fn several_crons_fire_at_the_times_of_any() {
    let spec = json!({
        "schedule": {"crons": ["0 1 * * *", "0 5 * * 0"]}, "start_date": "2026-01-03T00:00:00Z", "catchup": true,
        "data_interval": "none",
    });
    let wanted = [
        "2026-01-03T01:00:00Z",
        "2026-01-04T01:00:00Z",
        "2026-01-04T05:00:00Z",
        "2026-01-05T01:00:00Z",
    ];
    assert_eq!(run_times(spec, 4), wanted.map(at));
}

#[test]
fn a_jitter_moves_when_runs_are_made_and_nothing_else() {
    let spec = |dag_id: &str, jitter: Option<&str>| {
        let value = json!({
            "dag_id": dag_id, "tasks": [], "schedule": {"cron": "0 * * * *"}, "start_date": "2026-01-01T00:00:00Z",
            "catchup": true, "jitter": jitter,
        });
        serde_json::from_value::<DagSpec>(value).unwrap()
    };
    let runs = |dag_id: &str, jitter: Option<&str>| -> Vec<NextRun> {
        let table = Timetable::of(&spec(dag_id, jitter), at("2026-01-01T00:00:00Z"));
        let table = table.unwrap().unwrap();
        let now = at("2026-01-02T00:00:00Z");
        let first = table.next_after(None, now);
        std::iter::successors(first, |run| table.next_after(Some(run.run_after), now))
            .take(5)
            .collect()
    };
    let plain = runs("a", None);
    let mut delays = Vec::new();
    // Longer than the interval, too.
    for jitter in ["10m", "3h"] {
        for dag_id in ["a", "b", "c", "d"] {
            let moved = runs(dag_id, Some(jitter));
            let delay = moved[0].run_after - plain[0].run_after;
            assert!(
                delay >= Duration::zero()
                    && delay < jitter.parse::<crate::span::Span>().unwrap().chrono()
            );
            for (moved, plain) in moved.iter().zip(&plain) {
                assert_eq!(moved.run_after - plain.run_after, delay);
                assert_eq!(moved.logical_date, plain.logical_date);
                assert_eq!(moved.interval_end, plain.interval_end);
            }
            delays.push(delay);
        }
    }
    delays.sort();
    delays.dedup();
    assert_eq!(delays.len(), 8, "each DAG has its own: {delays:?}");
}

#[test]
fn without_catchup_a_jitter_does_not_bring_a_run_forward() {
    let spec = json!({
        "schedule": {"cron": "0 * * * *"}, "start_date": "2026-01-01T00:00:00Z", "jitter": "50m", "data_interval": "none",
    });
    let table = table(spec);
    let run = table.next_after(None, at("2026-01-02T00:00:00Z")).unwrap();
    assert!(run.run_after <= at("2026-01-02T00:00:00Z"));
    let next = table
        .next_after(Some(run.run_after), at("2026-01-02T00:00:00Z"))
        .unwrap();
    assert!(next.run_after > at("2026-01-02T00:00:00Z"));
    assert_eq!(next.logical_date - run.logical_date, Duration::hours(1));
}

#[test]
fn a_continuous_run_covers_the_time_since_the_one_before() {
    let table = table(json!({"schedule": "continuous", "start_date": "2026-01-20T00:00:00Z"}));
    let first = table.next_after(None, at("2026-01-15T10:00:00Z")).unwrap();
    assert_eq!(first.logical_date, at("2026-01-20T00:00:00Z"));
    assert_eq!(first.run_after, at("2026-01-20T00:00:01Z"));
    let last = first.run_after;
    let next = table
        .next_after(Some(last), at("2026-01-20T00:07:00Z"))
        .unwrap();
    assert_eq!(
        (next.logical_date, next.run_after),
        (last, at("2026-01-20T00:07:00Z"))
    );
    // A run that ended at once.
    let soon = table.next_after(Some(last), last).unwrap();
    assert_eq!(soon.run_after, last + Duration::seconds(1));
    assert!(!table.is_periodic() && table.is_continuous());
}
