//! `ibid plot`: metrics over steps, in the terminal or as a picture.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ibid_ledger::marks::Marks;
use ibid_ledger::metrics::{self, Point};
use ibid_ledger::record::Record;
use ibid_ledger::run_id::RunId;
use serde_json::json;

use crate::args::Cli;
use crate::ledger_args::Plot;
use crate::plot::{Chart, Series, svg, terminal};
use crate::project_ledger::{ProjectLedger, failure};
use crate::report::Failure;
use crate::table::terminal_width;
use crate::ui::{self, Ui};

/// Columns where no terminal says how many it has.
const WIDTH: usize = 80;

/// A run with what is drawn of it.
struct Drawn {
    record: Record,
    tags: Vec<String>,
    /// Step and value by metric.
    curves: BTreeMap<String, Vec<Point>>,
}

pub fn main(ui: &Ui, cli: &Cli, args: &Plot) -> Result<u8, Failure> {
    let project = ProjectLedger::of(cli.directory.as_deref())?;
    let (ids, names) = sort_out(&project, &args.words)?;
    let runs = ids.into_iter().map(|id| read(&project, id)).collect::<Result<Vec<_>, _>>()?;
    let known: BTreeSet<&String> = runs.iter().flat_map(|run| run.curves.keys()).collect();
    let mut metrics = Vec::new();
    for name in &names {
        let name = name.strip_prefix("metrics.").filter(|_| !known.contains(name)).unwrap_or(name);
        if !known.iter().any(|known| *known == name) {
            let listed: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
            return Err(Failure::new(format!("`{name}` is no run and no metric of these runs")).hint(
                if listed.is_empty() {
                    "they told none".to_owned()
                } else {
                    format!("there are {}", listed.join(", "))
                },
            ));
        }
        metrics.push(name.to_owned());
    }
    if names.is_empty() {
        metrics.extend(known.into_iter().cloned());
    }
    if args.json {
        ui::print(&serde_json::to_string_pretty(&document(&runs, &metrics)).expect("plain data"));
        return Ok(0);
    }
    if metrics.is_empty() {
        return Err(
            Failure::new("these runs told no metrics").hint("docs/ledger.md says where metrics are read")
        );
    }
    let charts: Vec<Chart> = metrics.iter().map(|metric| chart(metric, &runs, args.log)).collect();
    if let Some(path) = &args.svg {
        write(ui, path, &svg::document(&charts))?;
    }
    if let Some(path) = &args.html {
        let (head, rows) = table(&runs, &metrics);
        write(ui, path, &svg::page("Runs", &charts, &head, &rows))?;
    }
    if args.svg.is_none() && args.html.is_none() {
        charts.iter().for_each(|chart| show(ui, chart));
    }
    Ok(0)
}

/// Which words are runs, each once, and which are metrics.
fn sort_out(project: &ProjectLedger, words: &[String]) -> Result<(Vec<RunId>, Vec<String>), Failure> {
    let (mut ids, mut names) = (Vec::new(), Vec::new());
    for word in words {
        match project.find(word) {
            Ok(id) if !ids.contains(&id) => ids.push(id),
            Ok(_) => {}
            Err(_) => names.push(word.clone()),
        }
    }
    if ids.is_empty() {
        ids.push(project.find("last")?);
    }
    Ok((ids, names))
}

fn read(project: &ProjectLedger, id: RunId) -> Result<Drawn, Failure> {
    let folder = project.ledger.run_folder(id);
    let record = project.ledger.read(id).map_err(failure)?;
    let mut curves: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for point in metrics::read(&folder).map_err(failure)? {
        curves.entry(point.name.clone()).or_default().push(point);
    }
    curves.values_mut().for_each(|points| points.sort_by_key(|point| point.step));
    let tags = Marks::read(&folder).map_err(failure)?.tags;
    Ok(Drawn { record, tags, curves })
}

/// What a run is called in a legend: its id, tags, and how it differs from the others.
fn label(run: &Drawn, runs: &[Drawn]) -> String {
    let mut label = run.record.id.to_string();
    for tag in &run.tags {
        label.push_str(&format!(" {tag}"));
    }
    let varies = |name: &String| {
        let first = runs[0].record.parameters.get(name);
        runs.iter().any(|run| run.record.parameters.get(name) != first)
    };
    for (name, value) in run.record.parameters.iter().filter(|(name, _)| varies(name)) {
        label.push_str(&format!("  {name}={value}"));
    }
    label
}

fn chart(metric: &str, runs: &[Drawn], is_log: bool) -> Chart {
    let series = runs.iter().enumerate().filter_map(|(number, run)| {
        let points = run.curves.get(metric)?.iter().map(|point| (point.step as f64, point.value));
        Some(Series {
            label: label(run, runs),
            number,
            points: points.filter(|point| point.1.is_finite()).collect(),
        })
    });
    Chart { metric: metric.to_owned(), series: series.collect(), is_log }
}

fn show(ui: &Ui, chart: &Chart) {
    let has_colour = ui.has_colour_on_stdout();
    let paint = |number: usize, text: &str| ui.paint_stdout(terminal::style(number), text);
    let tells_apart = has_colour || chart.series.len() == 1;
    ui::print(&ui.paint_stdout(ui::BOLD, &chart.metric));
    let width = terminal_width().unwrap_or(WIDTH);
    let paint_dots: Option<terminal::Paint> = if tells_apart { Some(&paint) } else { None };
    for line in terminal::draw(chart, width, paint_dots) {
        ui::print(&line);
    }
    for series in &chart.series {
        let sign = if tells_apart { "──".to_owned() } else { terminal::sign(series.number).to_string() };
        let last = series.points.last().map_or("no value".to_owned(), |point| ui::number(point.1));
        ui::print(&format!("  {} {}  {last}", paint(series.number, &sign), series.label));
    }
    ui::print("");
}

/// The runs as cells: how each went, and the last value of each metric.
fn table(runs: &[Drawn], metrics: &[String]) -> (Vec<String>, Vec<Vec<String>>) {
    let parameters: BTreeSet<&String> = runs.iter().flat_map(|run| run.record.parameters.keys()).collect();
    let mut head: Vec<String> = ["run", "tags", "started", "exit code"].map(str::to_owned).into();
    head.extend(parameters.iter().map(|name| (*name).clone()).chain(metrics.iter().cloned()));
    let row = |run: &Drawn| {
        let record = &run.record;
        let code = record.exit_code.map_or_else(String::new, |code| code.to_string());
        let mut row = vec![record.id.to_string(), run.tags.join(", "), record.started.clone(), code];
        row.extend(parameters.iter().map(|name| record.parameters.get(*name).cloned().unwrap_or_default()));
        let last = |metric: &String| run.curves.get(metric)?.last().map(|point| ui::number(point.value));
        row.extend(metrics.iter().map(|metric| last(metric).unwrap_or_default()));
        row
    };
    (head, runs.iter().map(row).collect())
}

fn document(runs: &[Drawn], metrics: &[String]) -> serde_json::Value {
    let curve = |points: &Vec<Point>| {
        points
            .iter()
            .map(|point| json!({"step": point.step, "value": point.value, "time": point.time}))
            .collect::<Vec<_>>()
    };
    let run = |run: &Drawn| {
        let curves: BTreeMap<&String, _> =
            metrics.iter().filter_map(|metric| Some((metric, curve(run.curves.get(metric)?)))).collect();
        json!({"id": run.record.id, "metrics": curves})
    };
    json!({"schema": 1, "curves": runs.iter().map(run).collect::<Vec<_>>()})
}

fn write(ui: &Ui, path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::of(&error).while_doing(format!("cannot write {}", path.display())))?;
    ui.say(&format!("wrote {}", path.display()));
    Ok(())
}
