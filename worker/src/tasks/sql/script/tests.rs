use super::*;
use serde_json::json;

fn texts(text: &str, dialect: Dialect) -> Vec<String> {
    split(text, dialect)
        .into_iter()
        .map(|statement| statement.text)
        .collect()
}

#[test]
fn statements_end_at_semicolons_of_their_own() {
    use Dialect::{MySql, Postgres, Sqlite};
    for dialect in [Postgres, MySql, Sqlite] {
        assert_eq!(
            texts(
                " SELECT 1 ; ;\n-- a; b\nSELECT ';', 'it''s; so' /* ; */;",
                dialect
            ),
            ["SELECT 1", "-- a; b\nSELECT ';', 'it''s; so' /* ; */"],
            "{dialect:?}"
        );
        assert_eq!(texts("-- nothing;\n/* ; */ ;; ", dialect), [""; 0]);
        assert_eq!(texts("SELECT 'never ended; ö", dialect).len(), 1);
    }
    assert_eq!(
        texts(
            "SELECT $$a;b$$; DO $x$ BEGIN; $$;$$ END $x$; SELECT E'\\';'; SELECT 'a\\'; SELECT /* /* ; */ ; */ 2",
            Postgres
        ),
        [
            "SELECT $$a;b$$",
            "DO $x$ BEGIN; $$;$$ END $x$",
            "SELECT E'\\';'",
            "SELECT 'a\\'",
            "SELECT /* /* ; */ ; */ 2"
        ]
    );
    assert_eq!(
        texts("SELECT 'a\\';', `x;y` # ;\n; SELECT 5--2;", MySql),
        ["SELECT 'a\\';', `x;y` # ;", "SELECT 5--2"]
    );
}

#[test]
fn bodies_of_routines_stay_whole() {
    let trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; SELECT CASE 1 WHEN 1 THEN 2 END; END";
    assert_eq!(
        texts(&format!("{trigger}; SELECT 1;"), Dialect::Sqlite),
        [trigger, "SELECT 1"]
    );
    let procedure = "CREATE DEFINER=`a`@`b` PROCEDURE p() BEGIN DELETE FROM b; DELETE FROM c; END";
    assert_eq!(
        texts(&format!("SELECT 1; {procedure};\n"), Dialect::MySql),
        ["SELECT 1", procedure]
    );
    assert_eq!(
        texts("CREATE TABLE event (a INT); SELECT 1", Dialect::MySql).len(),
        2
    );
}

#[test]
fn names_become_the_placeholders_of_the_database() {
    let text = "SELECT :day::date, ':no', a[1:n], :day -- :no\n, :ö, :x; SELECT 1";
    let named = json!({"day": "2026-01-01", "x": 7});
    let named = Parameters::Named(named.as_object().unwrap().clone());
    let of = |dialect| bind(&split(text, dialect), &named, dialect).unwrap();
    let postgres = of(Dialect::Postgres);
    assert_eq!(
        postgres[0],
        (
            "SELECT $1::date, ':no', a[1:n], $1 -- :no\n, :ö, $2".to_owned(),
            vec![json!("2026-01-01"), json!(7)]
        )
    );
    assert_eq!(postgres[1], ("SELECT 1".to_owned(), vec![]));
    let mysql = of(Dialect::MySql);
    assert_eq!(
        mysql[0].1,
        [json!("2026-01-01"), json!("2026-01-01"), json!(7)]
    );
    let sqlite = bind(
        &split("SELECT :x, :x", Dialect::Sqlite),
        &named,
        Dialect::Sqlite,
    );
    assert_eq!(
        sqlite.unwrap()[0],
        ("SELECT ?1, ?1".to_owned(), vec![json!(7)])
    );
    let unknown = bind(
        &split("SELECT 1; SELECT :dya", Dialect::Postgres),
        &named,
        Dialect::Postgres,
    );
    assert_eq!(
        unknown.unwrap_err().to_string(),
        "statement 2 binds :dya, which is not in `parameters`; it has: day, x"
    );
}

#[test]
fn a_list_goes_to_each_statement_from_its_start() {
    let list = |n: usize| Parameters::List((1..=n).map(|n| json!(n)).collect());
    let counts = |text: &str, dialect, n| {
        bind(&split(text, dialect), &list(n), dialect).map(|bound| {
            bound
                .iter()
                .map(|(_, values)| values.len())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        counts(
            "SELECT $2, '$9'; SELECT 1; SELECT $1, $1",
            Dialect::Postgres,
            2
        ),
        Ok(vec![2, 0, 1])
    );
    assert_eq!(
        counts("SELECT ?, ?; SELECT ?", Dialect::MySql, 2),
        Ok(vec![2, 1])
    );
    assert_eq!(counts("SELECT ?3, ?", Dialect::Sqlite, 4), Ok(vec![4]));
    assert_eq!(
        counts("SELECT ?, ?", Dialect::MySql, 1)
            .unwrap_err()
            .to_string(),
        "statement 1 binds parameter 2, but `parameters` has 1"
    );
    assert_eq!(
        counts("SELECT $1", Dialect::Postgres, 2),
        Err(Misfit::Unused(2))
    );
    // JSON's operators of Postgres are no placeholders.
    assert_eq!(
        counts("SELECT '{}'::jsonb ? 'a'", Dialect::Postgres, 0),
        Ok(vec![0])
    );
}
