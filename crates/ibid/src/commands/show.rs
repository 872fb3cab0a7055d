//! `ibid show`: all that is known of a run.

use ibid_ledger::marks::Marks;
use ibid_ledger::record::{CodeMode, EnvValue, Record, Status};
use serde_json::json;

use crate::args::Cli;
use crate::ledger_args::Show;
use crate::project_ledger::{ProjectLedger, failure};
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Files that are named as examples.
const FILES_SHOWN_MAX: usize = 10;

pub fn main(ui: &Ui, cli: &Cli, args: &Show) -> Result<u8, Failure> {
    let project = ProjectLedger::of(cli.directory.as_deref())?;
    let id = project.find(&args.run)?;
    let record = project.ledger.read(id).map_err(failure)?;
    let marks = Marks::read(&project.ledger.run_folder(id)).map_err(failure)?;
    if args.json {
        let mut run = serde_json::to_value(&record).expect("plain data");
        run["tags"] = json!(marks.tags);
        run["notes"] = json!(marks.notes);
        ui::print(&serde_json::to_string_pretty(&json!({"schema": 1, "run": run})).expect("plain data"));
        return Ok(0);
    }
    Page { ui }.show(&record, &marks);
    Ok(0)
}

/// Writes names and values under each other.
struct Page<'a> {
    ui: &'a Ui,
}

impl Page<'_> {
    fn field(&self, name: &str, value: &str) {
        if !value.is_empty() {
            let name = self.ui.paint_stdout(ui::BOLD, &format!("{name:<12}"));
            // What follows a line end stays under the value.
            ui::print(&format!("{name} {}", value.replace('\n', &format!("\n{:13}", ""))));
        }
    }

    /// Several values under one name.
    fn list(&self, name: &str, values: impl IntoIterator<Item = String>) {
        for (number, value) in values.into_iter().enumerate() {
            self.field(if number == 0 { name } else { "" }, &value);
        }
    }

    fn show(&self, record: &Record, marks: &Marks) {
        self.field("run", &record.id.to_string());
        self.field("tags", &marks.tags.join(", "));
        self.list("notes", marks.notes.iter().map(|note| format!("{}  {}", note.time, note.text)));
        self.field("status", &self.status(record));
        self.list("warning", record.warnings.iter().map(|text| self.ui.paint_stdout(ui::YELLOW, text)));
        self.field("started", &record.started);
        let took =
            record.seconds.map(|seconds| format!("  after {}", ui::seconds(seconds))).unwrap_or_default();
        self.field("ended", &record.ended.as_ref().map(|ended| format!("{ended}{took}")).unwrap_or_default());
        if let Some(usage) = &record.usage {
            let cpu = ui::seconds(usage.cpu_seconds);
            self.field(
                "used",
                &format!("{} of memory at most, {cpu} of processors", ui::bytes(usage.peak_memory)),
            );
        }
        self.field("replay of", &record.replay_of.map(|id| id.to_string()).unwrap_or_default());
        self.field("command", &words(&record.command));
        self.field("arguments", &words(&record.arguments));
        self.list("parameters", record.parameters.iter().map(|(name, value)| format!("{name} = {value}")));
        self.list(
            "metrics",
            record.metrics.iter().map(|(name, metric)| {
                let [last, min, max] = [metric.last, metric.min, metric.max].map(ui::number);
                let range = self.ui.paint_stdout(
                    ui::DIM,
                    &format!("from {min} to {max}, {} values in {}", metric.count, metric.source),
                );
                format!("{name} = {last}  {range}")
            }),
        );
        self.outputs(record);
        self.code(record);
        self.image(record);
        self.list(
            "env",
            record.env.iter().map(|(name, value)| match value {
                EnvValue::Plain(value) => format!("{name}={value}"),
                EnvValue::Secret { .. } => {
                    format!("{name}  {}", self.ui.paint_stdout(ui::DIM, "a secret, not recorded"))
                }
            }),
        );
        self.list(
            "mounts",
            record.mounts.iter().map(|mount| {
                let mode = if mount.read_only { "read-only" } else { "writable" };
                format!("{} at {}, {mode}", mount.source, mount.target)
            }),
        );
        self.list(
            "data",
            record.data.iter().map(|data| {
                let digest = data.digest.map_or_else(String::new, |digest| format!(", {digest}"));
                format!("{}  {} files, {}{digest}", data.path, data.files, ui::bytes(data.bytes))
            }),
        );
        self.list("options", record.options.iter().map(|(name, value)| format!("{name} = {value}")));
        self.host(record);
        self.field("recorded by", &format!("ibid {}", record.ibid));
    }

    fn status(&self, record: &Record) -> String {
        let code = record.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
        let signal = record.signal.as_ref().map(|signal| format!(", by {signal}")).unwrap_or_default();
        let failure = record.failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
        let (word, style) = match record.status {
            Status::Ok => ("ok", ui::GREEN),
            Status::Failed => ("failed", ui::RED),
            Status::Running => ("running", ui::CYAN),
            Status::Lost => ("lost: nobody saw its end", ui::YELLOW),
            Status::NotStarted => ("not started", ui::RED),
        };
        format!("{}{code}{signal}{failure}", self.ui.paint_stdout(style, word))
    }

    fn outputs(&self, record: &Record) {
        self.field("output in", record.output_folder.as_deref().unwrap_or_default());
        let shown = record.outputs.iter().take(FILES_SHOWN_MAX).map(|output| {
            let about = format!("{}, {}", ui::bytes(output.bytes), ui::short_digest(&output.digest));
            format!("{}  {}", output.path, self.ui.paint_stdout(ui::DIM, &about))
        });
        self.list("outputs", shown.chain(more(record.outputs.len())));
    }

    fn code(&self, record: &Record) {
        let code = &record.code;
        let mode = match code.mode {
            CodeMode::Mounted => "mounted",
            CodeMode::Pegged => "pegged",
        };
        let folder = code.folder.as_ref().map(|folder| format!(" at {folder}")).unwrap_or_default();
        let commit = code.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        let branch = code.branch.as_ref().map(|branch| format!(" on {branch}")).unwrap_or_default();
        self.field("code", &format!("{mode}{folder}{commit}{branch}"));
        self.field("remote", code.remote.as_deref().unwrap_or_default());
        self.field("snapshot", &code.snapshot.map(|digest| digest.to_string()).unwrap_or_default());
        self.files("differing", &code.differing);
        self.files("changed", &code.changed_during_run);
        self.files("left out", &code.left_out);
        match code.equals_working_tree {
            Some(true) => self.field("pegged code", "as in the working tree"),
            Some(false) => self.field("pegged code", "not as in the working tree"),
            None => {}
        }
    }

    fn files(&self, name: &str, paths: &[String]) {
        self.list(name, paths.iter().take(FILES_SHOWN_MAX).cloned().chain(more(paths.len())));
    }

    fn image(&self, record: &Record) {
        let image = &record.image;
        self.field("image", &image.digest.to_string());
        self.field("image tags", &image.tags.join(", "));
        self.list("pushed", image.pushed.iter().cloned());
        self.list("bases", image.bases.iter().map(|(name, digest)| format!("{name} was {digest}")));
        self.field("ibid.lock", &image.lock.map(|digest| digest.to_string()).unwrap_or_default());
        self.field("layers", &image.layers.len().to_string());
    }

    fn host(&self, record: &Record) {
        let host = &record.host;
        self.field("host", &format!("{}, {} ({})", host.name, host.user, host.uid));
        self.field("kernel", &format!("{} on {}", host.kernel, host.architecture));
        self.field("cpu", &format!("{} × {}, {} of memory", host.cpus, host.cpu, ui::bytes(host.memory)));
        self.list("gpus", host.gpus.iter().map(|gpu| format!("{}, driver {}", gpu.model, gpu.driver)));
        self.field("engine", &host.engine);
    }
}

/// Says how many are not shown.
fn more(count: usize) -> Option<String> {
    (count > FILES_SHOWN_MAX).then(|| format!("and {} more, in --json", count - FILES_SHOWN_MAX))
}

/// Words as a shell reads them.
pub(super) fn words(words: &[String]) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=,@%+".contains(c);
    let quoted = |word: &String| {
        if !word.is_empty() && word.chars().all(is_plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}
