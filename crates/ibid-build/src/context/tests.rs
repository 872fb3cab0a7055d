use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use ibid_core::plan::CopyFrom;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps};

use super::*;

/// A folder to take as a context.
struct Folder(tempfile::TempDir);

impl Folder {
    /// Lines: `path content`, `path/` for a folder, `path -> target` for a link, `path |` for a pipe.
    fn new(lines: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some((path, target)) = line.split_once(" -> ") {
                symlink(target, folder.parented(path)).expect("link");
            } else if let Some(path) = line.strip_suffix('/') {
                fs::create_dir_all(folder.path(path)).expect("make the folder");
            } else if let Some(path) = line.strip_suffix(" |") {
                let path = folder.parented(path);
                rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).expect("make the pipe");
            } else {
                let (path, content) = line.split_once(' ').expect("a path and content");
                folder.write(path, content);
            }
        }
        folder
    }

    fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(relative)
    }

    fn parented(&self, relative: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make the folder");
        path
    }

    fn write(&self, relative: &str, content: &str) {
        fs::write(self.parented(relative), content).expect("write");
    }

    fn context(&self, rules: &str) -> Context {
        let rules = IgnoreFile {
            name: ".dockerignore".to_owned(),
            rules: Ignore::parse(rules.as_bytes()).expect("the rules are well formed"),
        };
        Context::open(self.0.path(), rules, None).expect("open")
    }

    fn digest(&self) -> Digest {
        let context = self.context("");
        let selection = context.select(&["."]).expect("select");
        context.digest(&selection).expect("digest")
    }
}

/// `path=content`, `path/`, `path->target`, sources separated by `;` and entries by a space.
fn shown(context: &Context, selection: &Selection) -> String {
    let entry = |(path, entry): (&[u8], &Entry)| {
        let path = String::from_utf8_lossy(path);
        match &entry.kind {
            Kind::Folder => format!("{path}/"),
            Kind::Link { target } => format!("{path}->{}", String::from_utf8_lossy(target)),
            Kind::Special => format!("{path}|"),
            Kind::File { executable } => {
                let mut content = Vec::new();
                context.copy_file(entry, &mut content).expect("copy");
                format!("{path}={}{}", String::from_utf8_lossy(&content), if *executable { "*" } else { "" })
            }
        }
    };
    let source = |source: &Source| source.entries().map(entry).collect::<Vec<_>>().join(" ");
    selection.sources.iter().map(source).collect::<Vec<_>>().join("; ")
}

#[test]
fn sources_mean_what_they_mean_to_docker() {
    let folder = Folder::new(
        "a.txt A
         b.txt B
         c.md C
         dir/x.txt X
         dir/sub/y.txt Y
         dir/lx -> x.txt
         dir2/x.txt X2
         empty/inner/
         link.txt -> a.txt
         linkdir -> dir
         absolute -> /dir/sub
         chain -> linkdir/sub
         climbing -> ../../../b.txt
         dangling -> nowhere
         loop1 -> loop2
         loop2 -> loop1
         secret/key S
         secret/public/p.txt P
         to_secret -> secret/key
         we[ird]/f W",
    );
    let check = |rules: &str, sources: &[&str], expected: &str| {
        let context = folder.context(rules);
        let actual = match context.select(sources) {
            Ok(selection) => shown(&context, &selection),
            Err(error) => {
                format!("! {}", error.to_string().replace(folder.0.path().to_str().expect("UTF-8"), "ROOT"))
            }
        };
        assert_eq!(actual, expected, "{rules:?} {sources:?}");
    };
    check("", &["a.txt"], "a.txt=A");
    check("", &["dir"], "lx->x.txt sub/ sub/y.txt=Y x.txt=X");
    check("", &["dir/", "a.txt"], "lx->x.txt sub/ sub/y.txt=Y x.txt=X; a.txt=A");
    check("", &["./dir//sub/."], "y.txt=Y");
    check("", &["dir/../a.txt"], "a.txt=A");
    check("", &["empty"], "inner/");
    check("", &["a.txt/"], "a.txt=A");
    // Links: followed when named, inside the context; kept when found in a folder.
    check("", &["link.txt"], "link.txt=A");
    check("", &["linkdir"], "lx->x.txt sub/ sub/y.txt=Y x.txt=X");
    check("", &["linkdir/x.txt"], "x.txt=X");
    check("", &["absolute"], "y.txt=Y");
    check("", &["chain"], "y.txt=Y");
    check("", &["climbing"], "climbing=B");
    check("", &["dangling"], "! `dangling` is not in the build context ROOT");
    check("", &["loop1"], "! `loop1` goes through too many symbolic links");
    // Wildcards.
    check("", &["*.txt"], "a.txt=A; b.txt=B; link.txt=A");
    check("", &["?.txt"], "a.txt=A; b.txt=B");
    check("", &["[^a].txt"], "b.txt=B");
    check("", &["*/x.txt"], "x.txt=X; x.txt=X2");
    check("", &["dir/l*"], "lx=X");
    check("", &["linkdir/*"], "lx=X; y.txt=Y; x.txt=X");
    check("", &["link*"], "link.txt=A; lx->x.txt sub/ sub/y.txt=Y x.txt=X");
    check("", &["dir*/*/*"], "y.txt=Y");
    check("", &["**/y.txt"], "");
    check("", &["we[[]ird]/f"], "f=W");
    check("", &["nothing*"], "");
    check("", &["nothing/*"], "! `nothing/*` is not in the build context ROOT");
    check("", &["a.txt/*"], "");
    check("", &["d[*"], "! `d[*` is no pattern: `[` without its `]`");
    check("", &["d*"], "! `dangling` is not in the build context ROOT");
    check("", &["nothing"], "! `nothing` is not in the build context ROOT");
    check("", &["a.txt/b"], "! `a.txt/b` is not in the build context ROOT");
    // Ignore rules.
    check(
        "# none\nsecret",
        &["secret/key"],
        "! `secret/key` is dropped from the build context by .dockerignore:2",
    );
    check("secret", &["secret"], "! `secret` is dropped from the build context by .dockerignore:1");
    check("secret", &["secret/*"], "! `secret/*` is dropped from the build context by .dockerignore:1");
    check("secret", &["s*"], "");
    check("secret", &["to_secret"], "! `to_secret` is dropped from the build context by .dockerignore:1");
    check("secret\n!secret/public", &["secret"], "public/ public/p.txt=P");
    check("secret\n!secret/public", &["s*/p*"], "p.txt=P");
    check(
        "secret\n!secret/public",
        &["secret/key"],
        "! `secret/key` is dropped from the build context by .dockerignore:1",
    );
    check("*\n!**/p.txt", &["."], "secret/ secret/public/ secret/public/p.txt=P");
    check("*\n!dir/x.txt", &["linkdir"], "! `linkdir` is dropped from the build context by .dockerignore:1");
    check("*", &["."], "");
    check("*.txt", &["dir"], "lx->x.txt sub/ sub/y.txt=Y x.txt=X");
}

/// A copy with these flags; `folder : pattern` is a source of `--parents`.
fn copied(sources: &[&str], exclude: &[&str]) -> Copy {
    let source = |text: &&str| match text.split_once(" : ") {
        Some((folder, pattern)) => {
            CopySource::Below { folder: folder.to_owned(), pattern: pattern.to_owned() }
        }
        None => CopySource::Path((*text).to_owned()),
    };
    Copy {
        from: CopyFrom::Context,
        sources: sources.iter().map(source).collect(),
        inline: Vec::new(),
        dest: "/".to_owned(),
        chown: None,
        chmod: None,
        exclude: exclude.iter().map(|&pattern| pattern.to_owned()).collect(),
        extract: false,
        link: false,
    }
}

#[test]
fn flags_leave_out_and_keep_parents() {
    let folder = Folder::new(
        "home.txt h
         hom.md m
         home/a.txt a
         home/sub/b.txt b
         home/sub/c.md c
         home/empty/
         dangling.txt -> nowhere
         link -> home
         ignored/x.txt i
         deep/x/y/z.txt z
         deep/x/w.txt w",
    );
    let context = folder.context("ignored\n!ignored/x.txt\nhome/sub/c.md\n");
    #[track_caller]
    fn check(context: &Context, sources: &[&str], exclude: &[&str], expected: &str) {
        let actual = match context.select_copied(&copied(sources, exclude)) {
            Ok(selection) => shown(context, &selection),
            Err(error) => error.to_string().replace(&context.root.display().to_string(), "ROOT"),
        };
        assert_eq!(actual, expected, "{sources:?} {exclude:?}");
    }
    let check = |sources: &[&str], exclude: &[&str], expected: &str| {
        check(&context, sources, exclude, expected);
    };
    // By name, of what a source names or its wildcards match; links that lead nowhere are no matter then.
    check(&["hom*"], &["*.txt"], "hom.md=m; empty/ sub/ sub/b.txt=b");
    check(&["hom*"], &["**/*.txt", "*.md"], "empty/ sub/");
    check(&["home.txt", "hom.md"], &["*.txt"], "hom.md=m");
    check(&["*.txt"], &["dangling*"], "home.txt=h");
    check(&["*.txt"], &[], "`dangling.txt` is not in the build context ROOT");
    check(&["missing.txt"], &["*.txt"], "`missing.txt` is not in the build context ROOT");
    check(&["home*"], &["home"], "home.txt=h");
    // Inside a folder, relative to it, whatever it is called.
    check(&["home"], &["home"], "a.txt=a empty/ sub/ sub/b.txt=b");
    check(&["home"], &["sub"], "a.txt=a empty/");
    check(&["home"], &["/a.txt", "empty"], "sub/ sub/b.txt=b");
    check(&["home", "deep"], &["*", "!x/y"], "; x/ x/y/ x/y/z.txt=z");
    check(&["home"], &["**"], "");
    // Parents.
    check(&[". : home.txt", ". : home/sub/b.txt"], &[], "home.txt=h; home/ home/sub/ home/sub/b.txt=b");
    check(&["home : sub/b.txt"], &[], "sub/ sub/b.txt=b");
    check(&["deep : **/*.txt"], &[], "x/ x/w.txt=w x/y/ x/y/z.txt=z");
    check(&["deep : **/*.txt"], &["x/y"], "x/ x/w.txt=w");
    check(&["deep : *"], &[], "x/ x/w.txt=w x/y/ x/y/z.txt=z");
    check(&["deep : ."], &[], "x/ x/w.txt=w x/y/ x/y/z.txt=z");
    check(&["h* : a.txt", "d*/x : w.txt"], &[], "a.txt=a; w.txt=w");
    check(&["link : a.txt"], &[], "a.txt=a");
    check(&[". : none*"], &[], "");
    check(&[". : none"], &[], "`none` is not in the build context ROOT");
    check(&["home : none"], &[], "`home/none` is not in the build context ROOT");
    check(&["none : *"], &[], "`none` is not in the build context ROOT");
    check(&[". : link/a.txt"], &[], "`link/a.txt` is not in the build context ROOT");
    check(&["home.txt : x"], &[], "`home.txt/x` is not in the build context ROOT");
    check(&["home : sub/c.md"], &[], "`home/sub/c.md` is dropped from the build context by .dockerignore:3");
    check(&[". : home.txt"], &["*.txt"], "");
    check(&[". : ignored"], &[], "ignored/ ignored/x.txt=i");
}

#[test]
fn the_digest_is_that_of_what_is_selected() {
    let folder = Folder::new("a.txt 1\nb.md 2");
    let digest = |sources: &[&str], exclude: &[&str]| {
        let context = folder.context("");
        let selection = context.select_copied(&copied(sources, exclude)).expect("selects");
        context.digest(&selection).expect("a digest")
    };
    let without = digest(&["."], &["*.md"]);
    folder.write("b.md", "3");
    assert_eq!(digest(&["."], &["*.md"]), without);
    assert_ne!(digest(&["."], &[]), without);
}

#[test]
fn patterns_that_match_nothing_are_listed() {
    let folder = Folder::new("a A");
    let selection = folder.context("").select(&["b*", "a", "[c]"]).expect("select");
    assert_eq!(selection.unmatched, ["b*", "[c]"]);
    assert_eq!(selection.totals(), (1, 1));
}

#[test]
fn special_files_are_never_copied() {
    let folder = Folder::new("dir/pipe |\n dir/a A\n pipe |");
    let context = folder.context("");
    let error = context.select(&["pipe"]).expect_err("a pipe is no source");
    assert_eq!(error.to_string(), "`pipe` is neither a file, a folder nor a symbolic link");
    let selection = context.select(&["dir", "p*"]).expect("select");
    let skipped: Vec<&Path> = selection.skipped().collect();
    assert_eq!(skipped, [Path::new("pipe"), Path::new("dir/pipe")]);
    let without = Folder::new("dir/a A");
    let other = without.context("");
    let plain = other.select(&["dir"]).expect("select");
    assert_eq!(context.digest(&selection).expect("digest"), other.digest(&plain).expect("digest"));
}

#[test]
fn the_digest_is_that_of_the_content() {
    const LINES: &str = "a A\n dir/b B\n dir/l -> b\n empty/";
    let reference = Folder::new(LINES).digest();
    let check = |what: &str, same: bool, change: &dyn Fn(&Folder)| {
        let folder = Folder::new(LINES);
        change(&folder);
        assert_eq!(folder.digest() == reference, same, "{what}");
    };
    let chmod = |folder: &Folder, path: &str, mode: u32| {
        fs::set_permissions(folder.path(path), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    check("nothing", true, &|_| {});
    check("times", true, &|folder| {
        let time = Timespec { tv_sec: 1, tv_nsec: 1 };
        let times = Timestamps { last_access: time, last_modification: time };
        for path in ["a", "dir"] {
            rustix::fs::utimensat(CWD, folder.path(path), &times, rustix::fs::AtFlags::empty())
                .expect("set times");
        }
    });
    check("umask", true, &|folder| {
        chmod(folder, "a", 0o600);
        chmod(folder, "dir", 0o700);
    });
    check("executable for others only", true, &|folder| chmod(folder, "a", 0o655));
    check("executable", false, &|folder| chmod(folder, "a", 0o744));
    check("content of the same size", false, &|folder| folder.write("a", "Z"));
    check("content", false, &|folder| folder.write("dir/b", "BB"));
    check("new file", false, &|folder| folder.write("dir/c", ""));
    check("new folder", false, &|folder| fs::create_dir(folder.path("new")).expect("make"));
    check("folder gone", false, &|folder| fs::remove_dir(folder.path("empty")).expect("remove"));
    check("renamed", false, &|folder| fs::rename(folder.path("a"), folder.path("b")).expect("rename"));
    check("moved", false, &|folder| {
        fs::rename(folder.path("dir/b"), folder.path("empty/b")).expect("rename")
    });
    check("link", false, &|folder| {
        fs::remove_file(folder.path("dir/l")).expect("remove");
        symlink("../a", folder.path("dir/l")).expect("link");
    });
    check("file for a link", false, &|folder| {
        fs::remove_file(folder.path("dir/l")).expect("remove");
        folder.write("dir/l", "b");
    });
}

#[test]
fn sources_do_not_run_together_in_the_digest() {
    let folder = Folder::new("one/a A\n one/b B\n two/a A\n three/b B");
    let context = folder.context("");
    let digest = |sources: &[&str]| {
        let selection = context.select(sources).expect("select");
        context.digest(&selection).expect("digest")
    };
    assert_ne!(digest(&["one"]), digest(&["two", "three"]));
    assert_ne!(digest(&["one"]), digest(&["one/a", "one/b"]));
    assert_ne!(digest(&["one/a"]), digest(&["one/b"]));
    assert_ne!(digest(&["two", "three"]), digest(&["three", "two"]));
    assert_eq!(digest(&["one/a", "one/b"]), digest(&["one/*"]));
    assert_eq!(digest(&["two/a"]), digest(&["one/a"]));
}

#[test]
fn names_that_are_no_utf8_are_carried_as_they_are() {
    let folder = Folder::new("");
    let name = OsStr::from_bytes(b"\xff\xfe \n");
    fs::write(folder.path(name), "odd").expect("write");
    let context = folder.context("");
    let entries = context.walk().expect("walk");
    assert_eq!(entries.get(0).path(), Path::new(name));
    let selection = context.select(&["?? ?"]).expect("select");
    assert_eq!(selection.sources[0].name(), b"\xff\xfe \n");
}

/// Cuts a file short as soon as a part of it has been written.
struct CutsShort<'a> {
    file: &'a Path,
    written: usize,
}

impl Write for CutsShort<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fs::OpenOptions::new().write(true).open(self.file)?.set_len(1)?;
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_copied_is_an_error() {
    let content = "x".repeat(1_000_000);
    for is_known in [false, true] {
        let folder = Folder::new("");
        folder.write("a", &content);
        let context = folder.context("");
        let selection = context.select(&["a"]).expect("select");
        if is_known {
            context.digest(&selection).expect("digest");
        }
        let (_, entry) = selection.sources[0].entries().next().expect("one entry");
        let file = folder.path("a");
        let mut to = CutsShort { file: &file, written: 0 };
        let result = context.copy_file(entry, &mut to);
        assert!(matches!(result, Err(Error::Changed { ref path }) if *path == file), "{result:?}");
        assert!(to.written < content.len(), "{}", to.written);
    }
}

#[test]
fn a_file_that_is_read_piece_by_piece_is_what_its_digest_says() {
    let read = |change: &dyn Fn(&Folder), halfway: &dyn Fn(&Folder)| {
        let folder = Folder::new("a before");
        let context = folder.context("");
        let selection = context.select(&["a"]).expect("select");
        context.digest(&selection).expect("digest");
        change(&folder);
        let (_, entry) = selection.sources[0].entries().next().expect("one entry");
        let mut reader = context.read_file(entry).expect("opens");
        let mut start = [0; 3];
        std::io::Read::read_exact(&mut reader, &mut start).expect("three bytes");
        halfway(&folder);
        reader.finish().map_err(|error| error.to_string())
    };
    let nothing = |_: &Folder| {};
    assert_eq!(read(&nothing, &nothing), Ok(()));
    assert_eq!(read(&|folder| folder.write("a", "before and after"), &nothing), Ok(()));
    for change in ["BEFORE", "bef"] {
        let error = read(&|folder| folder.write("a", change), &nothing).expect_err(change);
        assert!(error.ends_with("changed while the build was reading it"), "{error}");
        read(&nothing, &|folder| folder.write("a", change)).expect_err(change);
    }
}

#[test]
fn a_file_that_changed_since_its_digest_is_not_copied() {
    let check = |what: &str, expected: Option<&str>, change: &dyn Fn(&Folder)| {
        let folder = Folder::new("a before");
        let context = folder.context("");
        let selection = context.select(&["a"]).expect("select");
        context.digest(&selection).expect("digest");
        change(&folder);
        let (_, entry) = selection.sources[0].entries().next().expect("one entry");
        let mut copy = Vec::new();
        match (context.copy_file(entry, &mut copy), expected) {
            (Ok(size), Some(content)) => {
                assert_eq!((copy.as_slice(), size), (content.as_bytes(), content.len() as u64), "{what}");
            }
            (Err(Error::Changed { path }), None) => assert_eq!(path, folder.path("a"), "{what}"),
            (result, _) => panic!("{what}: {result:?}"),
        }
    };
    let remove = |folder: &Folder| fs::remove_file(folder.path("a")).expect("remove");
    check("nothing", Some("before"), &|_| {});
    check("appended to", Some("before"), &|folder| folder.write("a", "before and after"));
    check("rewritten", None, &|folder| folder.write("a", "BEFORE"));
    check("cut short", None, &|folder| folder.write("a", "bef"));
    check("removed", None, &remove);
    check("replaced by a pipe", None, &|folder| {
        remove(folder);
        rustix::fs::mknodat(CWD, folder.path("a"), FileType::Fifo, Mode::RUSR, 0).expect("make the pipe");
    });
    check("replaced by a link", None, &|folder| {
        remove(folder);
        folder.write("b", "before");
        symlink("b", folder.path("a")).expect("link");
    });
}

#[test]
fn a_file_that_is_gone_when_its_digest_is_wanted_is_an_error() {
    let folder = Folder::new("a A\n dir/b B");
    let context = folder.context("");
    let selection = context.select(&["."]).expect("select");
    fs::remove_dir_all(folder.path("dir")).expect("remove");
    let error = context.digest(&selection).expect_err("a file is missing");
    assert_eq!(
        error.to_string(),
        format!("{} changed while the build was reading it", folder.path("dir/b").display())
    );
}

#[test]
fn links_that_appear_on_the_way_lead_nowhere() {
    let outside = Folder::new("b OUTSIDE");
    let folder = Folder::new("dir/b B");
    let context = folder.context("");
    let selection = context.select(&["dir"]).expect("select");
    fs::rename(folder.path("dir"), folder.path("old")).expect("rename");
    symlink(outside.path(""), folder.path("dir")).expect("link");
    assert!(matches!(context.digest(&selection), Err(Error::Changed { .. })));
}

#[test]
fn the_listing_names_the_rule_of_each_path() {
    let folder =
        Folder::new("a.md 12\n README.md 123\n venv/lib/big 1\n out/keep/k 1\n out/drop 1\n src/x.py 1234");
    let context = folder.context("# rules\n*.md\n!README.md\nvenv\nout\n!out/keep");
    let listing = context.explain().expect("explain");
    let shown: Vec<String> = listing
        .found
        .iter()
        .map(|found| {
            let rule = found.rule.map_or(String::new(), |line| format!(":{line}"));
            format!("{}{}{rule}", if found.kept { '+' } else { '-' }, found.entry.path().display())
        })
        .collect();
    let expected = [
        "+README.md:3",
        "-a.md:2",
        "+out:5",
        "-out/drop:5",
        "+out/keep:6",
        "+out/keep/k:6",
        "+src",
        "+src/x.py",
        "-venv:4",
    ];
    assert_eq!(shown, expected);
    assert_eq!((listing.files_kept, listing.bytes_kept, listing.paths_dropped), (3, 8, 3));
}

#[test]
fn a_folder_dropped_whole_is_listed_once_whatever_exceptions_there_are() {
    let folder = Folder::new(".git/objects/x 1\n .git/HEAD 1\n .git-note 1\n a/keep 1");
    let context = folder.context(".git*\n!**/keep");
    let listing = context.explain().expect("explain");
    let shown: Vec<_> =
        listing.found.iter().map(|found| (found.entry.path().to_str().expect("text"), found.kept)).collect();
    assert_eq!(shown, [(".git", false), (".git-note", false), ("a", true), ("a/keep", true)]);
    assert_eq!(listing.paths_dropped, 2);
}

#[test]
fn a_folder_that_is_missing_or_a_file_is_no_context() {
    let folder = Folder::new("a A");
    for path in ["a", "none"] {
        let error = Context::open(&folder.path(path), IgnoreFile::default(), None).expect_err(path);
        assert_eq!(error.to_string(), format!("cannot open the folder {}", folder.path(path).display()));
    }
}

#[test]
fn what_is_listed_is_sorted_by_path_as_a_text() {
    let folder = Folder::new(
        "a/b/c 1
         a/b- 1
         a/b.d/e 1
         a-b/x/y 1
         a-b/x! 1
         a-b- 1
         a.c 1
         a/
         a0/1 1
         a! 1
         B/empty/
         z/a 1",
    );
    // More folders than one thread lists alone.
    for number in 0..40 {
        folder.write(&format!("many/{number}-/{number}"), "");
        folder.write(&format!("many/{number}/-"), "");
    }
    let context = folder.context("");
    let listed = context.walk().expect("listed");
    let paths: Vec<&[u8]> = listed.iter().map(Entry::path_bytes).collect();
    assert!(paths.is_sorted());
    assert_eq!(paths.len(), 19 + 1 + 4 * 40);
}
