//! What a slim image leaves out, and the files that tell dpkg and apt in the image to do the same.

/// Folders whose content is left out.
const EXCLUDED: [&str; 7] = [
    "usr/share/doc/",
    "usr/share/groff/",
    "usr/share/info/",
    "usr/share/linda/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
];

/// Whether a path of a package is left out. Copyright files stay, as their licences ask, and so do links that
/// stand for a whole documentation folder, since a copyright file is found through them.
pub(crate) fn is_excluded(path: &str, is_link: bool) -> bool {
    if !EXCLUDED.iter().any(|folder| path.starts_with(folder)) {
        return false;
    }
    let is_kept = match path.strip_prefix("usr/share/doc/").map(|rest| rest.split('/').collect::<Vec<_>>()) {
        Some(parts) => matches!(parts.as_slice(), [_, "copyright"]) || (is_link && parts.len() == 1),
        None => path == "usr/share/locale/locale.alias",
    };
    !is_kept
}

/// Files of the image that are no package's: path, content. The names are those that images of Debian usually have,
/// since Dockerfiles remove some of them by name.
pub(crate) fn settings() -> Vec<(&'static str, String)> {
    let mut filter = String::from("# Left out of this image, and of what is installed in it later.\n");
    for folder in EXCLUDED {
        filter.push_str(&format!("path-exclude=/{folder}*\n"));
    }
    filter.push_str("path-include=/usr/share/doc/*/copyright\npath-include=/usr/share/locale/locale.alias\n");
    let remove = "\"rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true\";";
    vec![
        ("etc/dpkg/dpkg.cfg.d/docker", filter),
        (
            "etc/dpkg/dpkg.cfg.d/docker-apt-speedup",
            "# A step that is cut off leaves no layer, so to sync within one gains nothing.\nforce-unsafe-io\n".to_owned(),
        ),
        (
            "etc/apt/apt.conf.d/docker-clean",
            format!(
                "// Nothing that apt can fetch again stays in a layer.\n\
                 DPkg::Post-Invoke {{ {remove} }};\n\
                 APT::Update::Post-Invoke {{ {remove} }};\n\
                 Dir::Cache::pkgcache \"\";\n\
                 Dir::Cache::srcpkgcache \"\";\n"
            ),
        ),
        (
            "etc/apt/apt.conf.d/docker-gzip-indexes",
            "// Package lists stay compressed, which makes layers that keep them smaller.\nAcquire::GzipIndexes \"true\";\n"
                .to_owned(),
        ),
        (
            "etc/apt/apt.conf.d/docker-no-languages",
            "// No translations of package descriptions.\nAcquire::Languages \"none\";\n".to_owned(),
        ),
        (
            "etc/apt/apt.conf.d/docker-autoremove-suggests",
            "// What is only suggested does not keep a package from being removed.\nAPT::AutoRemove::SuggestsImportant \"false\";\n"
                .to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_is_left_out_and_copyright_kept() {
        let check = |path, is_link, expected| assert_eq!(is_excluded(path, is_link), expected, "{path}");
        check("usr/share/doc/bash/README", false, true);
        check("usr/share/doc/bash/copyright", false, false);
        check("usr/share/doc/bash/x/copyright", false, true);
        check("usr/share/doc/libgcc1", true, false);
        check("usr/share/doc/bash", false, true);
        check("usr/share/doc", false, false);
        check("usr/share/man/man1/ls.1.gz", false, true);
        check("usr/share/manual", false, false);
        check("usr/share/locale/de/LC_MESSAGES/x.mo", false, true);
        check("usr/share/locale/locale.alias", false, false);
        check("usr/bin/ls", false, false);
    }
}
