//! Figures and how they are shown: `report`.

mod document;
mod figure;
mod html;
mod machine;
mod svg;
mod table;

pub use self::{
    document::{AimValue, Bound, Document, FORMAT, FigureValue, Measured, Peer, Second},
    figure::Figure,
    machine::Machine,
};

use crate::{
    deployment::{Deployment, Kind},
    error::{LoadError, Result},
    measure::{Cost, Samples},
};
use clap::{Args, ValueEnum};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// How figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    /// One page that needs nothing from elsewhere
    Html,
}

/// Shows files of figures again: as a table, as JSON, or as one page with plots
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Files that `bench` or `run` wrote with `-o json` or `--save`
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Also write the page with plots to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

/// Prints the files to standard output.
pub fn run(args: &ReportArgs) -> Result<()> {
    let documents = args
        .files
        .iter()
        .map(|file| Document::read(file))
        .collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.html {
        write(path, &html::page(&documents))?;
    }
    match args.output {
        Format::Table => documents
            .iter()
            .for_each(|document| println!("{}", table::text(document))),
        Format::Html => print!("{}", html::page(&documents)),
        Format::Json => println!("{}", serde_json::to_string_pretty(&documents)?),
    }
    Ok(())
}

/// Prints one document to standard output, and writes it where it is to be kept.
pub fn show(document: &Document, format: Format, save: Option<&PathBuf>) -> Result<()> {
    if let Some(path) = save {
        write(path, &(document.to_json()? + "\n"))?;
    }
    match format {
        Format::Table => println!("{}", table::text(document)),
        Format::Json => println!("{}", document.to_json()?),
        Format::Html => print!("{}", html::page(std::slice::from_ref(document))),
    }
    Ok(())
}

pub(crate) use table::{new_table, number, right};

fn write(path: &PathBuf, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| LoadError::Write {
        path: path.clone(),
        source,
    })
}

/// CPU seconds per 1000 tasks, by scenario and group of processes.
type CpuByGroup = BTreeMap<&'static str, BTreeMap<&'static str, Samples>>;

/// What is being measured of one deployment.
#[derive(Debug)]
pub struct Results {
    pub kind: Kind,
    figures: BTreeMap<Figure, Samples>,
    cpu: CpuByGroup,
    /// Servers whose CPU time is in no figure.
    unseen: Vec<&'static str>,
}

impl Results {
    pub fn new(deployment: &Deployment) -> Self {
        Self {
            unseen: deployment.processes.unseen.clone(),
            ..Self::empty(deployment.kind)
        }
    }

    /// Of deployments that are yet to be started.
    pub fn empty(kind: Kind) -> Self {
        Self {
            kind,
            figures: BTreeMap::new(),
            cpu: BTreeMap::new(),
            unseen: Vec::new(),
        }
    }

    /// Adds a sample, in the unit of its figure.
    pub fn add(&mut self, figure: Figure, value: f64) {
        self.figures.entry(figure).or_default().add(value);
    }

    /// Adds the CPU time of one repetition of `scenario`, which ran so many tasks.
    pub fn add_cost(&mut self, scenario: &'static str, cost: &Cost, tasks: usize) {
        let groups = self.cpu.entry(scenario).or_default();
        for (group, seconds) in &cost.cpu {
            groups
                .entry(group)
                .or_default()
                .add(seconds * 1000.0 / tasks as f64);
        }
    }

    /// What is reported, with aims that may depend on `peers`.
    pub fn measured(&self, peers: &[Peer]) -> Measured {
        let figures = self
            .figures
            .iter()
            .filter_map(|(figure, samples)| figure.reported(samples, self.kind, peers))
            .collect();
        let medians = |groups: &BTreeMap<&'static str, Samples>| {
            groups
                .iter()
                .filter_map(|(group, samples)| Some(((*group).to_owned(), samples.median()?)))
                .collect()
        };
        Measured {
            deployment: self.kind,
            figures,
            cpu_s_per_1000_tasks: self
                .cpu
                .iter()
                .map(|(scenario, groups)| ((*scenario).to_owned(), medians(groups)))
                .collect(),
            servers_not_counted: self.unseen.iter().map(|&name| name.to_owned()).collect(),
            timeline: Vec::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Documents for tests.

    use super::{Document, FORMAT, FigureValue, Machine, Measured};
    use crate::deployment::Kind;
    use std::collections::BTreeMap;

    pub(crate) fn figure(key: &str, value: f64, gate: bool) -> FigureValue {
        FigureValue {
            min: value / 2.0,
            max: value * 2.0,
            samples: 3,
            gate,
            ..FigureValue::plain(key, &key.replace('_', " "), "units", value)
        }
    }

    /// Of real servers, measured on a machine that is always the same.
    pub(crate) fn document(figures: Vec<FigureValue>) -> Document {
        let measured_at = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        Document {
            format: FORMAT,
            command: "bench".to_owned(),
            measured_at,
            took_s: 12.0,
            machine: Machine {
                looked_at: measured_at,
                processors: 2,
                model: "a processor".to_owned(),
                memory_gib: 24.0,
                kernel: "6.18".to_owned(),
                load_before: 0.5,
                load_after: 1.5,
            },
            settings: [("concurrency".to_owned(), 16.into())].into(),
            deployments: vec![Measured {
                deployment: Kind::RealServers,
                figures,
                cpu_s_per_1000_tasks: BTreeMap::new(),
                servers_not_counted: Vec::new(),
                timeline: Vec::new(),
            }],
            peers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Document, FigureValue, Second, html, table,
        testing::{document, figure},
    };
    use crate::report::{AimValue, Bound};

    /// Everything that a document can hold.
    fn full() -> Document {
        let aim = |bound, value, basis: Option<&str>| {
            Some(AimValue {
                bound,
                value,
                basis: basis.map(str::to_owned),
            })
        };
        let mut document = document(vec![
            FigureValue {
                aim: aim(Bound::AtMost, 45.0, None),
                met: Some(true),
                distribution: vec![(1.0, 20.0), (50.0, 30.0), (100.0, 60.0)],
                reference: [("celery".to_owned(), "26 / 34".to_owned())].into(),
                ..figure("chain_wall", 30.0, false)
            },
            FigureValue {
                aim: aim(
                    Bound::AtLeast,
                    973.0,
                    Some("1.4 × Celery's 695 for reference"),
                ),
                met: Some(false),
                ..figure("fanout_shell_rate", 486.5, false)
            },
            figure("<unknown>", 0.0421, true),
        ]);
        document.deployments[0].cpu_s_per_1000_tasks = [(
            "chain".to_owned(),
            [("api".to_owned(), 0.5), ("postgres".to_owned(), 1.5)].into(),
        )]
        .into();
        document.deployments[0].timeline = vec![
            Second {
                intended: 5,
                accepted: 5,
                ended: 3,
                in_flight: 2,
            },
            Second {
                ended: 2,
                ..Second::default()
            },
        ];
        document.peers = vec![super::Peer {
            name: "celery".to_owned(),
            label: "Celery 5.7 default".to_owned(),
            figures: [("fanout_shell_rate".to_owned(), 650.0)].into(),
        }];
        document
    }

    #[test]
    fn the_table_is_readable() {
        insta::assert_snapshot!(table::text(&full()));
    }

    #[test]
    fn the_page_is_whole_and_needs_nothing_from_elsewhere() {
        let page = html::page(&[full()]);
        assert!(
            !page.contains("http") && !page.contains("<script"),
            "{page}"
        );
        assert!(!page.contains("<unknown>"), "{page}");
        insta::assert_snapshot!(page.replace("><", ">\n<"));
    }

    #[test]
    fn documents_survive_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.json");
        let text = full().to_json().unwrap();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Document::read(&path).unwrap().to_json().unwrap(), text);
        std::fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
        let error = Document::read(&path).unwrap_err().to_string();
        assert!(error.contains("its format is 2"), "{error}");
    }
}
