//! What ties blobs together: descriptors and manifests, as the OCI image specification (descriptor.md, manifest.md)
//! defines them. Only the fields that ibid writes; a manifest that is read may have others.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The media type of an image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Where some bytes are, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What they are.
    pub media_type: String,
    /// Their digest, which is also their name.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// For a manifest: what kind of thing it describes, when that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// A configuration and layers that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Always [`MANIFEST`].
    pub media_type: String,
    /// What kind of thing it describes, when that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, in the configuration's order.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// A manifest of an image.
    pub fn of_image(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: MANIFEST.to_owned(), artifact_type: None, config, layers }
    }

    /// A manifest of an artifact of that type.
    pub fn of_artifact(artifact_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: Some(artifact_type.to_owned()),
            config,
            layers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_written_as_the_specification_says() {
        let descriptor = |media_type: &str| Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(b""),
            size: 0,
            artifact_type: None,
        };
        let manifest = Manifest::of_artifact("a/b", descriptor("c/d"), vec![descriptor("e/f")]);
        let text = serde_json::to_string(&manifest).expect("plain data");
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let expected = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"artifactType\":\"a/b\",\
             \"config\":{{\"mediaType\":\"c/d\",\"digest\":\"{empty}\",\"size\":0}},\
             \"layers\":[{{\"mediaType\":\"e/f\",\"digest\":\"{empty}\",\"size\":0}}]}}"
        );
        assert_eq!(text, expected);
        let with_more = expected.replacen('{', "{\"annotations\":{\"x\":\"y\"},", 1);
        assert_eq!(serde_json::from_str::<Manifest>(&with_more).expect("read"), manifest);
        serde_json::from_str::<Manifest>(&expected.replace("sha256:e3", "sha256:../e3"))
            .expect_err("no digest");
    }
}
