//! `docs/lifecycle.md` shows what the code does: its generated blocks stand between `<!-- generated: NAME -->` and
//! `<!-- end -->`. `UPDATE=1 cargo test -p gristmill-common lifecycle` writes them anew.

use gristmill_common::{
    state::TaskState,
    transition::{ALL, diagram, table},
};
use std::{collections::BTreeSet, fs, path::PathBuf};

/// States that no transition leads to in this version.
fn not_entered() -> Vec<TaskState> {
    let entered: BTreeSet<TaskState> = ALL.iter().flat_map(|t| t.to).copied().collect();
    TaskState::ALL
        .iter()
        .copied()
        .filter(|state| *state != TaskState::None && !entered.contains(state))
        .collect()
}

fn block(name: &str) -> String {
    match name {
        "diagram" => format!("```mermaid\n{}```\n", diagram()),
        "table" => table(),
        "not yet" => {
            let names: Vec<String> = not_entered().iter().map(|s| format!("`{s}`")).collect();
            format!("{}\n", names.join(", "))
        }
        other => panic!("docs/lifecycle.md asks for a block {other:?}, which nobody generates"),
    }
}

#[test]
fn lifecycle_page_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/lifecycle.md");
    let found = fs::read_to_string(&path).expect("docs/lifecycle.md");
    let (mut wanted, mut rest, mut shown) = (String::new(), found.as_str(), Vec::new());
    while let Some((before, after)) = rest.split_once("<!-- generated: ") {
        let (name, after) = after.split_once(" -->").expect("the end of a marker");
        let (_, after) = after.split_once("<!-- end -->").expect("<!-- end -->");
        wanted += &format!(
            "{before}<!-- generated: {name} -->\n\n{}\n<!-- end -->",
            block(name)
        );
        shown.push(name);
        rest = after;
    }
    wanted += rest;
    assert_eq!(shown, ["diagram", "table", "not yet"]);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &wanted).expect("docs/lifecycle.md can be written");
        return;
    }
    assert!(
        found == wanted,
        "docs/lifecycle.md is out of date: UPDATE=1 cargo test -p gristmill-common lifecycle"
    );
}

#[test]
fn lifecycle_ends_where_states_are_final() {
    for transition in ALL {
        for from in transition.from {
            // Only users do.
            let by_users = ["clear", "mark"].contains(&transition.name);
            assert!(
                !from.is_finished() || by_users,
                "{} leaves the final state {from}",
                transition.name
            );
        }
    }
    // Every state that is entered and not final is left again: nothing gets stuck by construction.
    for state in ALL
        .iter()
        .flat_map(|t| t.to)
        .filter(|state| !state.is_finished())
    {
        assert!(
            ALL.iter().any(|t| t.from.contains(state)),
            "no transition leaves {state}"
        );
    }
}
