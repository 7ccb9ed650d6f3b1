//! `make model`: checks the deployments of `make test` and larger ones, and tells how large they are; or finds what a broken
//! rule leads to.

use clap::Parser;
use gristmill_model::{
    graph::{Report, search},
    model::Deployment,
    rules::{Rule, Rules},
    setups,
};
use std::{process::ExitCode, time::Instant};

/// Checks the protocol's model exhaustively.
#[derive(Debug, Parser)]
struct Args {
    /// Only deployments whose name contains this
    name: Option<String>,
    /// Leave the large ones out, which take minutes and gigabytes
    #[arg(long)]
    quick: bool,
    /// Break this rule (a name of rules.rs, such as `JudgeMargin`); may be given again
    #[arg(long, value_parser = rule)]
    without: Vec<Rule>,
}

fn rule(name: &str) -> Result<Rule, String> {
    Rule::ALL
        .into_iter()
        .find(|rule| format!("{rule:?}") == name)
        .ok_or_else(|| format!("no rule is called {name}; there are {:?}", Rule::ALL))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut deployments = setups::quick();
    if !args.quick {
        deployments.extend(setups::large());
    }
    let mut failed = false;
    for (name, deployment) in deployments {
        if args.name.as_ref().is_some_and(|part| !name.contains(part)) {
            continue;
        }
        let started = Instant::now();
        let report = search(&Deployment {
            rules: Rules::without(&args.without),
            ..deployment
        });
        failed |= report.counterexample.is_some();
        print(name, &report, started.elapsed().as_secs_f32());
    }
    match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn print(name: &str, report: &Report, seconds: f32) {
    println!(
        "{name}: {} states, {} steps, {} deep, {seconds:.1} s",
        report.states, report.steps, report.depth
    );
    if let Some(found) = &report.counterexample {
        println!("  {} does not hold after", found.invariant);
        for action in &found.actions {
            println!("    {action:?}");
        }
        println!("  in {:#?}", found.state);
    }
}
