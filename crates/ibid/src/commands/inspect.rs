//! `ibid inspect`: what is known of an image.

use ibid_build::record::{BuildRecord, Files};
use ibid_core::digest::{DiffId, Digest};
use ibid_core::image::{ContainerConfig, ImageConfig};
use ibid_store::{Error, Kind, Store};
use serde_json::{Value, json};

use crate::args::Inspect;
use crate::image_build::{self, find_image, open_store};
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Files that are named as examples of the code in an image.
const FILES_SHOWN_MAX: usize = 5;

/// A layer of the image; nothing but its digest when the store has it no more.
struct Layer {
    diff_id: DiffId,
    content: Option<Content>,
}

struct Content {
    bytes: u64,
    tar_bytes: u64,
    entries: usize,
    files: usize,
}

pub fn main(ui: &Ui, inspect: &Inspect) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    let image = find_image(&store, &inspect.image)?;
    let config = store.image(&image)?;
    let layers = config.rootfs.diff_ids.iter().map(|diff_id| layer(&store, *diff_id));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let tags = store.tags()?.into_iter().filter(|(_, digest)| *digest == image);
    let tags: Vec<String> = tags.map(|(name, _)| name.to_string()).collect();
    let record = BuildRecord::read(&store, &image)?;
    let files = BuildRecord::files(&store, &image)?.unwrap_or_default();
    let record = record.as_ref().map(|record| (record, &files));
    if inspect.json {
        let config_text: Value = serde_json::from_slice(&store.blob(&image)?).expect("it was read before");
        let document = document(&image, &config, &config_text, &layers, &tags, record);
        ui::print(&serde_json::to_string_pretty(&document).expect("plain data"));
        return Ok(0);
    }
    show(ui, &image, &config, &layers, &tags, record);
    Ok(0)
}

fn layer(store: &Store, diff_id: DiffId) -> Result<Layer, Error> {
    let manifest = match store.layer_manifest(&diff_id) {
        Ok(manifest) => manifest,
        Err(Error::NoLayer { .. }) => return Ok(Layer { diff_id, content: None }),
        Err(error) => return Err(error),
    };
    let is_file = |kind: &Kind| matches!(kind, Kind::File { .. } | Kind::HardLink { .. });
    let content = Content {
        bytes: manifest.content_bytes(),
        tar_bytes: store.layer_tar_size(&diff_id)?,
        entries: manifest.entries.len(),
        files: manifest.entries.iter().filter(|entry| is_file(&entry.kind)).count(),
    };
    Ok(Layer { diff_id, content: Some(content) })
}

fn total_bytes(layers: &[Layer]) -> u64 {
    layers.iter().filter_map(|layer| layer.content.as_ref()).map(|content| content.bytes).sum()
}

/// What each instruction did, with the position of the layer that it made.
fn history(config: &ImageConfig) -> Vec<(&str, &Option<String>, Option<usize>)> {
    let mut next = 0;
    let steps = config.history.iter().map(|step| {
        let layer = (!step.empty_layer).then_some(next);
        next += usize::from(!step.empty_layer);
        (step.created_by.as_deref().unwrap_or_default(), &step.created, layer)
    });
    steps.collect()
}

fn document(
    image: &Digest,
    config: &ImageConfig,
    config_text: &Value,
    layers: &[Layer],
    tags: &[String],
    record: Option<(&BuildRecord, &Files)>,
) -> Value {
    let layer = |layer: &Layer| match &layer.content {
        Some(content) => json!({
            "digest": layer.diff_id, "present": true, "bytes": content.bytes, "tar_bytes": content.tar_bytes,
            "entries": content.entries, "files": content.files,
        }),
        None => json!({"digest": layer.diff_id, "present": false}),
    };
    let step = |(text, created, position): (&str, &Option<String>, Option<usize>)| {
        let layer = position.and_then(|position| config.rootfs.diff_ids.get(position));
        json!({"instruction": text, "created": created, "layer": layer})
    };
    let code = record.map(|(record, files)| {
        json!({
            "project": record.project.to_string_lossy(), "built": record.built, "code": record.code,
            "dockerfile": record.dockerfile, "files": files,
        })
    });
    json!({"schema": 1, "image": {
        "digest": image,
        "tags": tags,
        "platform": format!("{}/{}", config.os, config.architecture),
        "created": config.created,
        "bytes": total_bytes(layers),
        "config": config_text["config"],
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        "history": history(config).into_iter().map(step).collect::<Vec<_>>(),
        "code": code,
    }})
}

fn show(
    ui: &Ui,
    image: &Digest,
    config: &ImageConfig,
    layers: &[Layer],
    tags: &[String],
    record: Option<(&BuildRecord, &Files)>,
) {
    let field = |name: &str, value: &str| {
        if !value.is_empty() {
            let name = ui.paint_stdout(ui::BOLD, &format!("{name:<12}"));
            ui::print(&format!("{name} {value}"));
        }
    };
    field("image", &image.to_string());
    field("tags", &tags.join(", "));
    field("platform", &format!("{}/{}", config.os, config.architecture));
    field("created", config.created.as_deref().unwrap_or_default());
    field("author", config.author.as_deref().unwrap_or_default());
    field("size", &ui::bytes(total_bytes(layers)));
    show_config(&config.config, &field);
    match record {
        Some((record, copied)) => {
            field("code", &record.code);
            field("built", &format!("{} from {}", record.built, record.project.display()));
            let mut files: Vec<&str> = copied.keys().take(FILES_SHOWN_MAX).map(String::as_str).collect();
            let more = format!("and {} more", copied.len().saturating_sub(FILES_SHOWN_MAX));
            if copied.len() > FILES_SHOWN_MAX {
                files.push(&more);
            }
            field("files", &files.join(", "));
        }
        None => field("code", "of unknown origin: the image was not built here"),
    }
    ui::print("");
    let width = layers.len().to_string().len();
    for (position, layer) in layers.iter().enumerate() {
        let about = match &layer.content {
            Some(content) => format!("{:>8}  {:>6} files", ui::bytes(content.bytes), content.files),
            None => "missing".to_owned(),
        };
        ui::print(&format!("layer {:>width$}  {}  {about}", position + 1, layer.diff_id));
    }
    ui::print("");
    for (text, _, layer) in history(config) {
        let layer = layer.map_or_else(String::new, |position| format!("layer {}", position + 1));
        ui::print(&format!("{layer:>w$}  {}", ui::one_line(text), w = width + 6));
    }
}

fn show_config(config: &ContainerConfig, field: &impl Fn(&str, &str)) {
    // As Dockerfiles write them.
    let words = |words: &Option<Vec<String>>| match words {
        Some(words) => serde_json::to_string(words).expect("plain data"),
        None => String::new(),
    };
    field("user", &config.user);
    field("workdir", &config.working_dir);
    field("entrypoint", &words(&config.entrypoint));
    field("cmd", &words(&config.cmd));
    field("shell", &words(&config.shell));
    field("stop signal", config.stop_signal.as_deref().unwrap_or_default());
    field("ports", &config.exposed_ports.keys().cloned().collect::<Vec<_>>().join(", "));
    field("volumes", &config.volumes.keys().cloned().collect::<Vec<_>>().join(", "));
    for pair in &config.env {
        field("env", pair);
    }
    for (name, value) in &config.labels {
        field("label", &format!("{name}={value}"));
    }
    for trigger in &config.on_build {
        field("onbuild", trigger);
    }
    if let Some(healthcheck) = &config.healthcheck {
        field("healthcheck", &healthcheck.test.join(" "));
    }
}
