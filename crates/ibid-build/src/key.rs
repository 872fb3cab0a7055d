//! Cache keys: a digest of what a step reads, and of nothing else. Never a time, a folder, a user, or the
//! builder's umask.

use std::collections::BTreeMap;

use ibid_core::digest::{DiffId, Digest, Hasher};
use ibid_core::image::ContainerConfig;
use ibid_core::plan::{CacheBase, Copy, CopySource, Network, Permissions, Run};

use crate::remote::Pin;

/// Raised when a step's meaning or the rules for its layer change, so that old results are not used.
const RULES_VERSION: &str = "3";

/// By which rules layers are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) epoch: i64,
    pub(crate) keep_nondeterminism: bool,
}

/// A key, and the named inputs that it is the digest of.
pub(crate) struct Key {
    pub(crate) digest: Digest,
    pub(crate) inputs: Vec<(String, String)>,
}

/// Builds one key from named fields. Lengths are hashed too, so that no two lists of fields are alike.
struct KeyHasher {
    hasher: Hasher,
    inputs: Vec<(String, String)>,
}

impl KeyHasher {
    fn new(kind: &str, rules: Rules) -> Self {
        let mut key = Self { hasher: Hasher::default(), inputs: Vec::new() };
        key.field("kind", kind);
        key.field("rules", if rules.keep_nondeterminism { "none" } else { RULES_VERSION });
        key.field("epoch", &rules.epoch.to_string());
        key
    }

    fn field(&mut self, name: &str, value: &str) {
        self.hash(name, value);
        self.inputs.push((name.to_owned(), value.to_owned()));
    }

    fn hash(&mut self, name: &str, value: &str) {
        for text in [name, value] {
            self.hasher.update(&(text.len() as u64).to_le_bytes());
            self.hasher.update(text.as_bytes());
        }
    }

    /// As one input, since what is kept of hundreds of steps would else hold each layer hundreds of times.
    fn layers(&mut self, layers: &[DiffId]) {
        let mut all = Hasher::default();
        for layer in layers {
            let layer = layer.to_string();
            self.hash("layer", &layer);
            all.update(layer.as_bytes());
        }
        self.inputs.push(("layer".to_owned(), all.finish().to_string()));
    }

    fn finish(self) -> Key {
        Key { digest: self.hasher.finish(), inputs: self.inputs }
    }
}

/// A `RUN` over `layers`. `contents` are what its mounts show, one for each of them: none for those that start empty or
/// whose content does not count.
pub(crate) fn run(run: &Run, contents: &[Option<Digest>], layers: &[DiffId], rules: Rules) -> Key {
    let mut key = KeyHasher::new("run", rules);
    key.layers(layers);
    for argument in &run.argv {
        key.field("argument", argument);
    }
    for (name, value) in &run.env {
        key.field("variable", name);
        key.field("value", value);
    }
    key.field("user", &run.user);
    key.field("folder", &run.cwd);
    if let Some(script) = &run.script {
        key.field("script", &script.name);
        key.field("text", &script.content);
    }
    for (mount, content) in run.mounts.iter().zip(contents) {
        key.field("mount", &mount.options());
        if let Some(content) = content {
            key.field("mounted", &content.to_string());
        }
    }
    // Said only where it is asked for: a step that says nothing of it has the key that it always had.
    if run.network != Network::Default {
        key.field("network", if run.network == Network::None { "none" } else { "host" });
    }
    key.finish()
}

/// The name of a cache mount: its id, and what a new one is made of. `content` is that of the stage or image that it
/// starts from.
pub(crate) fn cache_mount(id: &str, base: &CacheBase, content: Option<&Digest>) -> Digest {
    let mut key = KeyHasher::new("cache mount", Rules { epoch: 0, keep_nondeterminism: false });
    key.field("id", id);
    match base {
        CacheBase::Empty(Permissions { uid, gid, mode }) => {
            key.field("owner", &format!("{uid}:{gid}"));
            key.field("mode", &format!("{mode:o}"));
        }
        CacheBase::Copy { source, .. } => {
            key.field("content", &content.expect("a base has content").to_string());
            key.field("source", source);
        }
    }
    key.finish().digest
}

/// The layer that holds what a mount shows of the context.
pub(crate) fn mounted_context(content: &Digest, epoch: i64) -> Digest {
    let mut key = KeyHasher::new("mounted context", Rules { epoch, keep_nondeterminism: false });
    key.field("content", &content.to_string());
    key.finish().digest
}

/// A `COPY` or `ADD` over `layers`, of sources with the given content. With `--link` the layers are no part of it.
/// Where something is fetched, `pins` says what, by number of the source, and after how many others it comes.
pub(crate) fn copy(
    copy: &Copy,
    content: &Digest,
    pins: &BTreeMap<usize, (Pin, usize)>,
    layers: &[DiffId],
    rules: Rules,
) -> Key {
    let mut key = KeyHasher::new("copy", rules);
    if copy.link {
        key.field("link", "yes");
    } else {
        key.layers(layers);
    }
    key.field("content", &content.to_string());
    for (number, source) in copy.sources.iter().enumerate() {
        if let Some((pin, before)) = pins.get(&number) {
            key.field("fetched", &pin.to_string());
            key.field("after", &before.to_string());
        }
        match source {
            CopySource::Path(path) => key.field("source", path),
            CopySource::Below { folder, pattern } => {
                key.field("source", folder);
                key.field("pattern", pattern);
            }
            // Where it comes from is not what it is.
            CopySource::Url(url) => {
                key.field("name", &url.file_name);
                key.field("unpack", if url.unpack { "yes" } else { "no" });
            }
            CopySource::Git(git) => {
                key.field("folder", git.folder.as_deref().unwrap_or("."));
                key.field("submodules", if git.submodules { "yes" } else { "no" });
                // Then it says where it comes from.
                if git.keep_git_dir {
                    key.field("repository", &git.name());
                }
            }
        }
    }
    for pattern in &copy.exclude {
        key.field("exclude", pattern);
    }
    for file in &copy.inline {
        key.field("inline", &file.name);
        key.field("text", &file.content);
    }
    key.field("destination", &copy.dest);
    key.field("owner", copy.chown.as_deref().unwrap_or(""));
    key.field("mode", &copy.chmod.as_ref().map(ToString::to_string).unwrap_or_default());
    key.field("extract", if copy.extract { "yes" } else { "no" });
    key.finish()
}

/// Content that is a whole stage or image.
pub(crate) fn stacked(layers: &[DiffId]) -> Digest {
    let mut key = KeyHasher::new("stack", Rules { epoch: 0, keep_nondeterminism: false });
    key.layers(layers);
    key.finish().digest
}

/// A `WORKDIR` over `layers`.
pub(crate) fn workdir(path: &str, user: &str, layers: &[DiffId], rules: Rules) -> Key {
    let mut key = KeyHasher::new("workdir", rules);
    key.layers(layers);
    key.field("path", path);
    key.field("user", user);
    key.finish()
}

/// The environment that mounted code runs in: the layers below the code, and the configuration.
pub(crate) fn environment(layers: &[DiffId], config: &ContainerConfig, rules: Rules) -> Digest {
    let mut key = KeyHasher::new("environment", rules);
    key.layers(layers);
    key.field("config", &serde_json::to_string(config).expect("a configuration holds only text keys"));
    key.finish().digest
}
