//! The files of a context as a tree of which only so much is opened as fits a screen: the largest folders first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

/// Lines of a view, about.
const ROWS_MAX: usize = 40;
/// Lines of one opened folder; the rest is one line.
const CHILDREN_MAX: usize = 12;

/// A folder with all that is in it.
#[derive(Debug, Default)]
pub struct Tree {
    bytes: u64,
    files: usize,
    folders: BTreeMap<String, Tree>,
    /// Bytes and a note of each.
    own: BTreeMap<String, (u64, String)>,
}

/// A line of the view.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// How far to the right it belongs.
    pub depth: usize,
    /// A folder's name ends with `/`.
    pub name: String,
    pub bytes: u64,
    /// Files in a folder; 0 for a file itself.
    pub files: usize,
    pub note: String,
}

impl Tree {
    /// Adds a folder, for those that hold nothing.
    pub fn folder(&mut self, path: &Path) {
        let mut tree = self;
        for component in path {
            tree = tree.folders.entry(component.to_string_lossy().into_owned()).or_default();
        }
    }

    /// Adds a file.
    pub fn file(&mut self, path: &Path, bytes: u64, note: String) {
        let mut tree = self;
        for component in path.parent().into_iter().flatten() {
            tree.bytes += bytes;
            tree.files += 1;
            tree = tree.folders.entry(component.to_string_lossy().into_owned()).or_default();
        }
        tree.bytes += bytes;
        tree.files += 1;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.own.insert(name, (bytes, note));
    }

    /// What an opened folder shows, largest first, and how many entries it does not show.
    fn children(&self) -> (Vec<Child<'_>>, usize) {
        let folders = self.folders.iter().map(|(name, tree)| Child::Folder(name, tree));
        let files = self.own.iter().map(|(name, (bytes, note))| Child::File(name, *bytes, note));
        let mut children: Vec<Child> = folders.chain(files).collect();
        children.sort_by_key(|child| Reverse(child.bytes()));
        // One line more costs no more than saying that one is missing.
        let shown = if children.len() == CHILDREN_MAX + 1 { CHILDREN_MAX + 1 } else { CHILDREN_MAX };
        let hidden = children.len().saturating_sub(shown);
        children.truncate(shown);
        (children, hidden)
    }

    fn cost(&self) -> usize {
        let (children, hidden) = self.children();
        children.len() + usize::from(hidden > 0)
    }
}

enum Child<'a> {
    Folder(&'a str, &'a Tree),
    File(&'a str, u64, &'a str),
}

impl Child<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Child::Folder(_, tree) => tree.bytes,
            Child::File(_, bytes, _) => *bytes,
        }
    }
}

/// The lines of the view.
pub fn rows(tree: &Tree) -> Vec<Row> {
    let mut view = View::default();
    let root = view.open(tree, 0);
    // Of those that are equally large, the first.
    while let Some((_, Reverse(node))) = view.closed.pop() {
        let Some(tree) = view.nodes[node].tree.filter(|tree| view.nodes.len() + tree.cost() <= ROWS_MAX)
        else {
            continue;
        };
        let depth = view.nodes[node].row.depth + 1;
        view.nodes[node].children = view.open(tree, depth);
    }
    let mut rows = Vec::new();
    view.take(&root, &mut rows);
    rows
}

#[derive(Default)]
struct View<'a> {
    nodes: Vec<Node<'a>>,
    /// Bytes and numbers of folders that are not opened.
    closed: BinaryHeap<(u64, Reverse<usize>)>,
}

struct Node<'a> {
    row: Row,
    /// None for a file.
    tree: Option<&'a Tree>,
    /// Numbers of what is shown in it, once it is opened.
    children: Vec<usize>,
}

impl<'a> View<'a> {
    /// Adds what a folder shows.
    fn open(&mut self, tree: &'a Tree, depth: usize) -> Vec<usize> {
        let first = self.nodes.len();
        let (children, hidden) = tree.children();
        let mut rest = (tree.bytes, tree.files);
        for child in children {
            let row = match child {
                Child::Folder(name, tree) => {
                    rest = (rest.0 - tree.bytes, rest.1 - tree.files);
                    self.closed.push((tree.bytes, Reverse(self.nodes.len())));
                    let name = format!("{name}/");
                    Row { depth, name, bytes: tree.bytes, files: tree.files, note: String::new() }
                }
                Child::File(name, bytes, note) => {
                    rest = (rest.0 - bytes, rest.1 - 1);
                    Row { depth, name: name.to_owned(), bytes, files: 0, note: note.to_owned() }
                }
            };
            let tree = match child {
                Child::Folder(_, tree) => Some(tree),
                Child::File(..) => None,
            };
            self.nodes.push(Node { row, tree, children: Vec::new() });
        }
        if hidden > 0 {
            let name = format!("… {hidden} more");
            let row = Row { depth, name, bytes: rest.0, files: rest.1, note: String::new() };
            self.nodes.push(Node { row, tree: None, children: Vec::new() });
        }
        (first..self.nodes.len()).collect()
    }

    fn take(&mut self, nodes: &[usize], rows: &mut Vec<Row>) {
        for &node in nodes {
            let children = std::mem::take(&mut self.nodes[node].children);
            rows.push(std::mem::take(&mut self.nodes[node].row));
            self.take(&children, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines such as `.a/b 12` make the tree.
    #[track_caller]
    fn check(paths: &[(&str, u64)], expected: &[&str]) {
        let mut tree = Tree::default();
        for (path, bytes) in paths {
            match path.strip_suffix('/') {
                Some(folder) => tree.folder(Path::new(folder)),
                None => tree.file(Path::new(path), *bytes, String::new()),
            }
        }
        let shown = rows(&tree).into_iter().map(|row| {
            let files = if row.files > 0 { format!(" {} files", row.files) } else { String::new() };
            format!("{}{} {}{files}", "  ".repeat(row.depth), row.name, row.bytes)
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_largest_comes_first() {
        check(&[], &[]);
        check(
            &[("small", 1), ("src/a.py", 5), ("src/b/c.py", 7), ("large", 20), ("none/", 0)],
            &[
                "large 20",
                "src/ 12 2 files",
                "  b/ 7 1 files",
                "    c.py 7",
                "  a.py 5",
                "small 1",
                "none/ 0",
            ],
        );
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let many = (0..40).map(|n| format!("many/{n:02}"));
        let names: Vec<String> = many.chain((0..4).map(|n| format!("few/{n:02}"))).collect();
        let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 2)).collect();
        let mut expected = vec!["many/ 80 40 files".to_owned()];
        expected.extend((0..12).map(|n| format!("  {n:02} 2")));
        expected.push("  … 28 more 56 28 files".to_owned());
        expected.push("few/ 8 4 files".to_owned());
        expected.extend((0..4).map(|n| format!("  {n:02} 2")));
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&files, &expected);
    }

    #[test]
    fn a_deep_or_wide_tree_takes_no_more_lines_than_fit() {
        let names: Vec<String> =
            (0..100).flat_map(|n| (0..20).map(move |m| format!("{n}/{m}/file"))).collect();
        let mut tree = Tree::default();
        names.iter().for_each(|name| tree.file(Path::new(name), 1, String::new()));
        tree.file(Path::new(&"d/".repeat(1000)), 5000, String::new());
        assert!(rows(&tree).len() <= ROWS_MAX);
    }
}
