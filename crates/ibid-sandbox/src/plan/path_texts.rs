//! Several of [`super::path_text`].

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serializer};

use super::path_text::PathText;

pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| PathText::new(path)))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    Ok(Vec::<PathText>::deserialize(deserializer)?.into_iter().map(PathText::into_path).collect())
}
