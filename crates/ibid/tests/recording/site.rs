//! A project whose program does what its first argument says, for whoever runs it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use ibid_ledger::ledger::Ledger;
use ibid_ledger::record::Record;
use ibid_testing::{Need, OrdinaryUser, Place, copy_program, need};

const DOCKERFILE: &str = "FROM scratch\nCOPY bin /bin\nCOPY run.sh /code/run.sh\nWORKDIR /code\nENTRYPOINT [\"/bin/sh\", \"/code/run.sh\"]\n";

/// What the program does.
const PROGRAM: &str = r#"
case $1 in
write)
    mkdir -p output
    echo "out $IBID_RUN_ID $IBID_OUTPUT_DIR"
    echo "err" >&2
    echo "epoch 1/2 loss 0.5"; echo "epoch 2/2 loss 0.25"
    echo '{"step": 3, "f1": 0.75}' > "$IBID_OUTPUT_DIR/metrics.jsonl"
    cp events output/events.out.tfevents.1
    ;;
wait) echo started; cat gate; echo over ;;
sleep) echo started; sleep 600 ;;
large) echo started; mkdir -p output; truncate -s 100G output/large ;;
fill) mkdir -p output; cat /dev/zero > output/fill; exit 3 ;;
edit) echo changed > model.txt; echo new > new.txt ;;
touch) touch .ibid/x; echo "$?" ;;
say) echo "$2" ;;
both) [ -t 1 ] && [ -t 2 ] && echo terminal; echo err >&2 ;;
descendant) (sleep 600; echo late) & echo early ;;
loud) head -c "$2" /dev/zero ;;
esac
"#;

pub struct Site {
    pub place: Place,
    pub user: Option<OrdinaryUser>,
}

impl Site {
    /// For this process's user; none where something is missing, which is said.
    pub fn own() -> Option<Self> {
        let needs: &[Need] = if rustix::process::geteuid().is_root() {
            &[Need::Overlay]
        } else {
            &[Need::Userns, Need::Subids, Need::Overlay]
        };
        if need(needs) { Self::new(None) } else { None }
    }

    /// For each kind of user that this process can be.
    pub fn each() -> Vec<Self> {
        let mut sites: Vec<Self> = Self::own().into_iter().collect();
        if rustix::process::geteuid().is_root() && need(&[Need::Userns, Need::Subids]) {
            sites.extend(OrdinaryUser::find().and_then(|user| Self::new(Some(user))));
        }
        sites
    }

    fn new(user: Option<OrdinaryUser>) -> Option<Self> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let Some(busybox) = busybox else {
            assert!(std::env::var("IBID_TEST_REQUIRE").as_deref() != Ok("all"), "needs busybox-static");
            eprintln!("skipped: needs busybox: install the package busybox-static");
            return None;
        };
        let site = Self { place: Place::new(), user };
        copy_program(env!("CARGO_BIN_EXE_ibid").as_ref(), &site.place.path().join("ibid"));
        site.place.folder("project/bin");
        fs::copy(busybox, site.path("bin/busybox")).expect("a copy");
        for program in ["sh", "cat", "cp", "echo", "head", "mkdir", "sleep", "touch", "truncate"] {
            std::os::unix::fs::symlink("busybox", site.path("bin").join(program)).expect("a link");
        }
        site.file("Dockerfile", DOCKERFILE);
        site.file("run.sh", PROGRAM);
        site.file("model.txt", "model\n");
        site.file("data/input", "input\n");
        site.file("ibid.toml", "name = \"site\"\n[run]\noutputs = [\"output\"]\ndata = [\"data\"]\n");
        site.give();
        Some(site)
    }

    /// Makes everything the user's.
    pub fn give(&self) {
        if let Some(user) = &self.user {
            user.own(self.place.path());
        }
    }

    pub fn file(&self, name: &str, content: &str) {
        self.place.file(&format!("project/{name}"), content);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join("project").join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(self.place.path().join("ibid"));
        command.args(args).current_dir(self.path(""));
        if let Some(user) = &self.user {
            command = user.command(&command);
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn ibid(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("ibid starts")
    }

    /// Runs, and gives what was written and recorded.
    #[track_caller]
    pub fn run(&self, args: &[&str], code: i32) -> (Output, Record) {
        let before = self.ids();
        let output = self.ibid(&[&["run"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{}", text(&output.stderr));
        let new: Vec<_> = self.ids().into_iter().filter(|id| !before.contains(id)).collect();
        let [id] = new[..] else { panic!("{new:?} are new\n{}", text(&output.stderr)) };
        let record = self.ledger().read(id).expect("a record");
        (output, record)
    }

    pub fn ledger(&self) -> Ledger {
        Ledger::of(&self.path(""))
    }

    pub fn ids(&self) -> Vec<ibid_ledger::run_id::RunId> {
        self.ledger().ids().expect("the ledger")
    }

    /// The record of the only run.
    #[track_caller]
    pub fn only(&self) -> Record {
        let [id] = self.ids()[..] else { panic!("{:?}", self.ids()) };
        self.ledger().read(id).expect("what is known of it")
    }

    /// Starts a run and waits until its program has said `started`.
    pub fn started(&self, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
        let mut run = self.command(&[&["run", "-q", "--"], args].concat());
        let mut run = run.stdout(Stdio::piped()).spawn().expect("ibid starts");
        let mut lines = BufReader::new(run.stdout.take().expect("a pipe"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("text");
        assert_eq!(line, "started\n");
        (run, lines)
    }

    /// All files of the ledger, which are all the project owner's.
    pub fn ledger_files(&self) -> Vec<PathBuf> {
        let owner = fs::metadata(self.path("")).expect("the project").uid();
        let mut files = Vec::new();
        let mut folders = vec![self.path(".ibid")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let metadata = fs::symlink_metadata(&path).expect("an entry");
                assert_eq!(metadata.uid(), owner, "{}", path.display());
                if metadata.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
