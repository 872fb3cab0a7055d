//! Images leave the store as files and come back; what is not what it says is refused, and nothing of it is visible.

mod support;

use std::fs;
use std::io::Read;

use ibid_core::digest::{DiffId, Digest};
use ibid_core::image::{ContainerConfig, ImageConfig, RootFs};
use ibid_core::reference::Reference;
use ibid_store::{ArchiveFormat, Compression, Error, NamedImage, OciFolder, Store};
use serde_json::{Value, json};
use support::{left_over, needs_root, test_store};

const COMPRESSIONS: [Option<Compression>; 3] = [None, Some(Compression::Gzip), Some(Compression::Zstd)];

/// An archive with these files.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, *content).expect("written to memory");
    }
    archive.into_inner().expect("finished")
}

fn config_of(layers: &[DiffId]) -> ImageConfig {
    ImageConfig {
        created: None,
        author: None,
        architecture: ibid_core::image::host_architecture().to_owned(),
        variant: None,
        os: "linux".to_owned(),
        config: ContainerConfig::default(),
        rootfs: RootFs::new(layers.to_vec()),
        history: Vec::new(),
    }
}

/// Three images of three layers, one of which occurs twice in one of them; with two names, one and none.
fn filled(store: &Store) -> Vec<NamedImage> {
    let numbers: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    let import = |tar: Vec<u8>| store.import_layer(tar.as_slice()).expect("a layer");
    let large = import(tar_of(&[("numbers", numbers.as_bytes()), ("b", b"b")]));
    let small = import(tar_of(&[("a", b"a")]));
    let empty = import(vec![0; 1024]);
    let image = |layers: &[DiffId]| store.put_image(&config_of(layers)).expect("an image");
    let names = |names: &[&str]| names.iter().map(|name| name.parse().expect("a name")).collect();
    vec![
        NamedImage { image: image(&[large, small]), names: names(&["one", "lab.org/one:v1"]) },
        NamedImage { image: image(&[small, empty, small]), names: names(&["two:x"]) },
        NamedImage { image: image(&[large]), names: Vec::new() },
    ]
}

fn saved(store: &Store, images: &[NamedImage], format: ArchiveFormat, by: Option<Compression>) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.save_archive(images, format, by, &mut bytes).expect("saved");
    bytes
}

/// What was loaded, in the form in which it was saved.
fn named(loaded: Vec<ibid_store::LoadedImage>) -> Vec<NamedImage> {
    let sorted = |mut names: Vec<Reference>| {
        names.sort();
        names
    };
    loaded.into_iter().map(|image| NamedImage { image: image.image, names: sorted(image.names) }).collect()
}

fn sorted(images: &[NamedImage]) -> Vec<NamedImage> {
    let mut images = images.to_vec();
    images.iter_mut().for_each(|image| image.names.sort());
    images
}

/// Gives a few bytes at a time, as a pipe may.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.0.len()).min(777);
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

#[test]
fn what_is_saved_is_loaded_and_saved_again_the_same() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let images = filled(&store);
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        for compression in COMPRESSIONS {
            let archive = saved(&store, &images, format, compression);
            let (_folder, other) = test_store();
            let loaded = other.load_archive(Trickle(&archive)).expect("loaded");
            assert_eq!(named(loaded), sorted(&images), "{format:?} {compression:?}");
            assert_eq!(left_over(&other), [""; 0]);
            assert!(saved(&other, &images, format, compression) == archive, "{format:?} {compression:?}");
            // Once more, where all of it is already; and compressed as a whole, as people do.
            assert_eq!(named(other.load_archive(archive.as_slice()).expect("again")), sorted(&images));
            let whole = zstd::bulk::compress(&archive, 1).expect("compressed");
            let (_folder, third) = test_store();
            assert_eq!(named(third.load_archive(whole.as_slice()).expect("again")), sorted(&images));
        }
    }
}

#[test]
fn what_the_reader_has_is_an_empty_file() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let image = &filled(&store)[0];
    let [held, other] = store.image(&image.image).expect("an image").rootfs.diff_ids[..] else {
        panic!("two layers")
    };
    let sizes_beside = |held: &[DiffId]| {
        let mut bytes = Vec::new();
        store.save_archive_beside(image, &held.iter().copied().collect(), &mut bytes).expect("saved");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().expect("an archive").map(|entry| entry.expect("an entry"));
        let sizes = entries.map(|entry| (entry.path().expect("a name").display().to_string(), entry.size()));
        (sizes.collect::<std::collections::BTreeMap<_, _>>(), bytes)
    };
    let file = |layer: &DiffId| format!("blobs/sha256/{}", layer.0.hex());
    let (whole, bytes) = sizes_beside(&[]);
    let (_folder, reader) = test_store();
    assert_eq!(
        named(reader.load_archive(bytes.as_slice()).expect("loaded")),
        sorted(std::slice::from_ref(image))
    );
    assert!(whole[&file(&held)] > 1_000_000);
    let (part, _) = sizes_beside(&[held]);
    assert_eq!(part[&file(&held)], 0);
    assert_eq!(part[&file(&other)], whole[&file(&other)]);
    assert_eq!(part.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    // What the files are called is the same, whatever is in them.
    assert_eq!(part["manifest.json"], whole["manifest.json"]);
}

#[test]
fn a_folder_keeps_what_it_has_under_other_names() {
    if !needs_root() {
        return;
    }
    let (place, store) = test_store();
    let images = filled(&store);
    for compression in COMPRESSIONS {
        let path = place.path().join(format!("{compression:?}"));
        let folder = OciFolder::open_or_make(&path).expect("a new folder");
        store.save_folder(&images[..1], compression, &folder).expect("saved");
        store.save_folder(&images[1..], compression, &folder).expect("saved");
        store.save_folder(&images, compression, &folder).expect("saved");
        let (_folder, other) = test_store();
        let loaded = named(other.load_folder(&OciFolder::open(&path).expect("a folder")).expect("loaded"));
        assert_eq!(loaded, sorted(&images), "{compression:?}");
        // A name moves.
        let moved = NamedImage { image: images[1].image, names: vec!["one".parse().expect("a name")] };
        store.save_folder(&[moved], compression, &folder).expect("saved");
        let loaded = named(other.load_folder(&folder).expect("loaded"));
        let names = |image: &NamedImage| image.names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            loaded.iter().map(names).collect::<Vec<_>>(),
            [vec!["lab.org/one:v1"], vec!["one:latest", "two:x"], vec![]]
        );
    }
}

/// The parts of an archive of an image with one layer, as the legacy and the newer form of `docker save` have them.
struct Parts {
    layer: Vec<u8>,
    config: Vec<u8>,
}

impl Parts {
    fn new() -> Self {
        let layer = tar_of(&[("a", b"a")]);
        let config = config_of(&[DiffId(Digest::of(&layer))]).to_json();
        Self { layer, config }
    }

    fn config_name(&self) -> String {
        format!("{}.json", Digest::of(&self.config).hex())
    }

    fn manifest(&self) -> Value {
        json!([{"Config": self.config_name(), "RepoTags": ["x:1"], "Layers": ["l/layer.tar"]}])
    }

    fn blob(digest: &Digest) -> String {
        format!("blobs/sha256/{}", digest.hex())
    }

    fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
    }

    fn oci_manifest(&self, layer: &[u8]) -> Vec<u8> {
        json!({
            "schemaVersion": 2,
            "config": Self::descriptor("application/vnd.oci.image.config.v1+json", &self.config),
            "layers": [Self::descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
        })
        .to_string()
        .into_bytes()
    }
}

fn index_of(entries: Value) -> Vec<u8> {
    json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes()
}

#[test]
fn archives_of_other_programs_are_loaded() {
    if !needs_root() {
        return;
    }
    let parts = Parts::new();
    let check = |archive: Vec<u8>, names: &[&str]| {
        let (_folder, store) = test_store();
        let loaded = store.load_archive(archive.as_slice()).expect("loaded");
        let [image] = &loaded[..] else { panic!("{loaded:?}") };
        assert_eq!(image.image, Digest::of(&parts.config));
        assert_eq!(image.names.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
        assert!(store.has_layer(&DiffId(Digest::of(&parts.layer))));
    };
    let manifest = parts.manifest().to_string();
    let (config_name, config) = (parts.config_name(), parts.config.as_slice());
    // Any order, other files, names with a dot in front.
    check(
        tar_of(&[
            ("manifest.json", manifest.as_bytes()),
            ("l/VERSION", b"1.0"),
            ("l/json", b"{}"),
            ("./l/layer.tar", &parts.layer),
            (&config_name, config),
            ("repositories", b"{}"),
        ]),
        &["x:1"],
    );
    // The layer by a link, as Docker 20.10 writes the second of two that are the same, and podman all of them.
    let mut linked = tar::Builder::new(Vec::new());
    let mut link = |kind, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        linked.append_link(&mut header, "l/layer.tar", target).expect("written to memory");
    };
    link(tar::EntryType::Symlink, "../elsewhere/layer.tar");
    let rest = tar_of(&[
        ("elsewhere/layer.tar", &parts.layer),
        (&config_name, config),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let linked = linked.into_inner().expect("finished");
    check([&linked[..linked.len() - 1024], &rest].concat(), &["x:1"]);
    // An index within the index, with an image for another machine and an attestation before this one's.
    let compressed = zstd::bulk::compress(&parts.layer, 1).expect("compressed");
    let manifest = parts.oci_manifest(&compressed);
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let mut own = Parts::descriptor(oci, &manifest);
    own["platform"] = json!({"os": "linux", "architecture": ibid_core::image::host_architecture()});
    let mut other = Parts::descriptor(oci, b"elsewhere");
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let mut attestation = Parts::descriptor(oci, b"attestation");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let inner = index_of(json!([other, attestation, own]));
    let mut outer = Parts::descriptor("application/vnd.oci.image.index.v1+json", &inner);
    outer["annotations"] = json!({"org.opencontainers.image.ref.name": "x:2"});
    let index = index_of(json!([outer]));
    check(
        tar_of(&[
            ("oci-layout", b"{\"imageLayoutVersion\": \"1.0.0\"}"),
            ("index.json", &index),
            (&Parts::blob(&Digest::of(&inner)), &inner),
            (&Parts::blob(&Digest::of(&manifest)), &manifest),
            (&Parts::blob(&Digest::of(&parts.config)), config),
            (&Parts::blob(&Digest::of(&compressed)), &compressed),
        ]),
        &["x:2"],
    );
}

/// What is said of an archive, and that nothing of it is visible.
#[track_caller]
fn check_refused(archive: &[u8], expected: &str) {
    let (_folder, store) = test_store();
    let error = store.load_archive(archive).expect_err("an archive that is refused");
    assert_eq!(message(&error), expected);
    for folder in ["tmp", "layers", "blobs/sha256", "tags"] {
        assert_eq!(fs::read_dir(store.root().join(folder)).expect(folder).count(), 0, "{folder}");
    }
}

fn message(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn docker_archives_that_lie_are_refused() {
    if !needs_root() {
        return;
    }
    let parts = Parts::new();
    let (name, config, layer) = (parts.config_name(), parts.config.as_slice(), parts.layer.as_slice());
    let manifest = parts.manifest().to_string().into_bytes();
    let other = tar_of(&[("a", b"other")]);
    let (diff_id, found) = (Digest::of(layer), Digest::of(&other));
    let check = |files: &[(&str, &[u8])], expected: &str| check_refused(&tar_of(files), expected);
    check(
        &[("l/layer.tar", layer), (&name, config)],
        "`manifest.json` is not in the archive, nor is an `index.json`",
    );
    check(
        &[("manifest.json", b"{")],
        "`manifest.json` is no image list: invalid type: map, expected a sequence at line 1 column 0",
    );
    check(&[("manifest.json", b"[]")], "the archive holds no image");
    check(&[("manifest.json", &manifest)], &format!("`{name}` is not in the archive"));
    check(&[("manifest.json", &manifest), (&name, config)], "`l/layer.tar` is not in the archive");
    check(
        &[("manifest.json", &manifest), (&name, config), ("l/layer.tar", b"no tar")],
        "`l/layer.tar` is no layer",
    );
    check(
        &[("manifest.json", &manifest), (&name, config), ("l/layer.tar", &other)],
        &format!("`l/layer.tar` holds the layer {found}, where the image has {diff_id}"),
    );
    check(
        &[("manifest.json", &manifest), (&name, config), ("l/layer.tar", &layer[..1000])],
        "`l/layer.tar` cannot be unpacked: the archive is damaged at byte 1000: it ends in the middle of an entry",
    );
    let climbing = {
        let mut bytes = other.clone();
        bytes[..5].copy_from_slice(b"../ab");
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|&byte| u32::from(byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    };
    check(
        &[("manifest.json", &manifest), (&name, config), ("l/layer.tar", &climbing)],
        "`l/layer.tar` cannot be unpacked: the archive's entry `../ab` is refused: its name climbs up by `..`",
    );
    let changed = [config, b" "].concat();
    check(
        &[("manifest.json", &manifest), (&name, &changed), ("l/layer.tar", layer)],
        &format!("`{name}` has the digest {}", Digest::of(&changed)),
    );
    let more = json!([{"Config": name, "Layers": ["l/layer.tar", "l/layer.tar"]}]).to_string().into_bytes();
    check(
        &[("manifest.json", &more), (&name, config), ("l/layer.tar", layer)],
        &format!("`{name}` names 1 layers, and there are 2"),
    );
    let climbs = json!([{"Config": "../../../../etc/passwd", "Layers": []}]).to_string().into_bytes();
    check(&[("manifest.json", &climbs)], "`../../../../etc/passwd` is not in the archive");
    let bad_name = json!([{"Config": name, "RepoTags": ["../x"], "Layers": ["l/layer.tar"]}]).to_string();
    let expected = "`manifest.json` is no image list: `../x` is no image reference: \
                    a registry is a host name or an address, with `:` and a port if that is not the usual one";
    check(&[("manifest.json", bad_name.as_bytes()), (&name, config), ("l/layer.tar", layer)], expected);
    // A layer that no image needs may be anything; the archive itself may not.
    let whole = tar_of(&[("x", b"x"), ("manifest.json", &manifest), (&name, config), ("l/layer.tar", layer)]);
    for end in [100, 600, 1300, whole.len() - 2048] {
        let (_folder, store) = test_store();
        store.load_archive(&whole[..end]).expect_err("cut short");
        assert_eq!(left_over(&store), [""; 0]);
    }
}

#[test]
fn oci_archives_that_lie_are_refused() {
    if !needs_root() {
        return;
    }
    let parts = Parts::new();
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let manifest = parts.oci_manifest(&parts.layer);
    let index = index_of(json!([Parts::descriptor(oci, &manifest)]));
    let name = |bytes: &[u8]| Parts::blob(&Digest::of(bytes));
    let (manifest_name, config_name, layer_name) = (name(&manifest), name(&parts.config), name(&parts.layer));
    let check = |files: &[(&str, &[u8])], expected: &str| {
        check_refused(&tar_of(&[&[("index.json", index.as_slice())], files].concat()), expected);
    };
    check(&[], &format!("`{manifest_name}` is not in the archive"));
    check(&[(&manifest_name, b"{}")], &format!("`{manifest_name}` has the digest {}", Digest::of(b"{}")));
    check(&[(&manifest_name, &manifest)], &format!("`{config_name}` is not in the archive"));
    let other = tar_of(&[("a", b"other")]);
    check(
        &[(&manifest_name, &manifest), (&config_name, &parts.config), (&layer_name, &other)],
        &format!(
            "`{layer_name}` has the digest {} instead of {}",
            Digest::of(&other),
            Digest::of(&parts.layer)
        ),
    );
    let refuse = |entries: Value, expected: &str| {
        check_refused(&tar_of(&[("index.json", &index_of(entries))]), expected);
    };
    refuse(json!([]), "the archive holds no image");
    refuse(
        json!([{"mediaType": oci, "digest": "sha256:../..", "size": 1}]),
        "`index.json` is no index: `sha256:../..` is no digest: expected `sha256:` and 64 lower-case hexadecimal digits",
    );
    let text = index_of(json!([]));
    let nested = Parts::descriptor("application/vnd.oci.image.index.v1+json", &text);
    let files = [("index.json", index_of(json!([nested]))), (name(&text).leak(), text.clone())];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let architecture = ibid_core::image::host_architecture();
    check_refused(&tar_of(&files), &format!("`{}` has no image for linux/{architecture}", name(&text)));
}

#[test]
fn documents_have_a_limit() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let mut header = tar::Header::new_ustar();
    header.set_path("manifest.json").expect("a name");
    header.set_size(1 << 40);
    header.set_cksum();
    let endless = std::io::Cursor::new(header.as_bytes().to_vec()).chain(std::io::repeat(b'x'));
    let error = store.load_archive(endless).expect_err("a document of a terabyte");
    assert_eq!(error.to_string(), "`manifest.json` does not fit: documents may take 67108864 bytes");
    assert_eq!(left_over(&store), [""; 0]);
}

#[test]
fn folders_that_lie_are_refused() {
    if !needs_root() {
        return;
    }
    let (place, store) = test_store();
    let images = filled(&store);
    let path = place.path().join("folder");
    let folder = OciFolder::open_or_make(&path).expect("a new folder");
    store.save_folder(&images[..1], None, &folder).expect("saved");
    let layer = store.image(&images[0].image).expect("an image").rootfs.diff_ids[0].0;
    let blob = path.join(Parts::blob(&layer));
    let bytes = fs::read(&blob).expect("the layer");
    let check = |expected: &str| {
        let (_folder, other) = test_store();
        let error = other.load_folder(&folder).expect_err("a folder that is refused");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(fs::read_dir(other.root().join("layers")).expect("layers").count(), 0);
        assert_eq!(left_over(&other), [""; 0]);
    };
    let mut changed = bytes.clone();
    changed[600] ^= 1;
    fs::write(&blob, &changed).expect("written");
    check("its content has the digest");
    fs::write(&blob, &bytes[..1000]).expect("written");
    check("it has 1000 bytes instead of");
    fs::remove_file(&blob).expect("removed");
    check("cannot open");
    std::os::unix::fs::symlink("/dev/zero", &blob).expect("a link");
    check("cannot open");
}
