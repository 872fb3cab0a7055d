//! Which terminal a program is told that it has: the one here, as far as the image knows it.

use std::path::Path;

use ibid_store::MergedView;

/// Where programs look for descriptions of terminals.
const FOLDERS: [&str; 4] = ["/etc/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/usr/share/terminfo"];

/// What most terminals say that they are like, the best first.
const COMMON: [&str; 2] = ["xterm-256color", "xterm"];

/// The value of `TERM` for a terminal that is called `name` here. Where the image has descriptions, but not that one, programs
/// would give up colours and the moving of the cursor; a terminal of these days takes what xterm takes.
pub(crate) fn term(name: &str, view: &MergedView) -> String {
    let is_there = |path: &str| view.find(Path::new(path)).is_ok_and(|found| found.is_some());
    let folders: Vec<&str> = FOLDERS.into_iter().filter(|folder| is_there(folder)).collect();
    let is_known = |name: &str| {
        let first = name.chars().next().unwrap_or('_');
        !name.contains('/') && folders.iter().any(|folder| is_there(&format!("{folder}/{first}/{name}")))
    };
    if folders.is_empty() || is_known(name) {
        return name.to_owned();
    }
    COMMON.into_iter().find(|common| is_known(common)).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_terminal_that_the_image_does_not_know_is_an_xterm() {
        let layer = tempfile::tempdir().expect("a folder");
        let view = MergedView::new(vec![layer.path().to_owned()]);
        // Without descriptions, programs bring their own or need none.
        assert_eq!(term("xterm-kitty", &view), "xterm-kitty");
        let describe = |name: &str| {
            let folder = layer.path().join("lib/terminfo").join(&name[..1]);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(name), "").expect("a file");
        };
        describe("dumb");
        assert_eq!(term("xterm-kitty", &view), "xterm-kitty");
        describe("xterm");
        assert_eq!(term("xterm-kitty", &view), "xterm");
        describe("xterm-256color");
        assert_eq!(term("xterm-kitty", &view), "xterm-256color");
        assert_eq!(term("dumb", &view), "dumb");
        assert_eq!(term("../../x", &view), "xterm-256color");
        assert_eq!(term("", &view), "xterm-256color");
    }
}
