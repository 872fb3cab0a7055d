//! Paths as text: `.`, `..` and doubled slashes worked off, nothing looked up.

/// The absolute path without `.`, `..` and doubled slashes; `..` stops at the root. Relative paths start at
/// `folder`.
pub(super) fn absolute(folder: &str, path: &str) -> String {
    let folder = if path.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The destination of a copy: as [`absolute`], with a `/` at the end when the text says that it is a folder.
pub(super) fn destination(folder: &str, path: &str) -> String {
    let mut result = absolute(folder, path);
    let is_folder = matches!(path, "" | ".") || path.ends_with('/') || path.ends_with("/.");
    if is_folder && !result.ends_with('/') {
        result.push('/');
    }
    result
}

/// The path without `.`, inner `..` and doubled slashes; a relative one stays relative.
pub(super) fn cleaned(path: &str) -> String {
    if path.starts_with('/') {
        return absolute("/", path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

/// A path relative to the root of what is copied from; `.` is all of it.
pub(super) fn source(path: &str) -> String {
    match &absolute("/", path)[1..] {
        "" => ".".to_owned(),
        path => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_stay_relative() {
        let check = |path: &str, expected: &str| assert_eq!(cleaned(path), expected, "{path}");
        check("/a//b/../c/", "/a/c");
        check("/..", "/");
        check("a/./b/", "a/b");
        check("a/../..", "..");
        check("../../a", "../../a");
        check("a/..", ".");
        check("", ".");
    }

    #[test]
    fn paths() {
        let check = |folder: &str, path: &str, expected: &str, as_destination: &str, as_source: &str| {
            assert_eq!(absolute(folder, path), expected, "{path} in {folder}");
            assert_eq!(destination(folder, path), as_destination, "{path} in {folder}");
            assert_eq!(source(path), as_source, "{path}");
        };
        check("/code", "a", "/code/a", "/code/a", "a");
        check("/code", "a/", "/code/a", "/code/a/", "a");
        check("/code", "a/.", "/code/a", "/code/a/", "a");
        check("/code", ".", "/code", "/code/", ".");
        check("/code", "", "/code", "/code/", ".");
        check("/code", "./", "/code", "/code/", ".");
        check("/code", "..", "/", "/", ".");
        check("/code/", "../../../x", "/x", "/x", "x");
        check("/code", "/", "/", "/", ".");
        check("/code", "//a//b/../c/", "/a/c", "/a/c/", "a/c");
        check("", "x", "/x", "/x", "x");
        check("/code", "*.py", "/code/*.py", "/code/*.py", "*.py");
    }
}
