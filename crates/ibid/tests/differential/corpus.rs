//! Reads the cases:
//!
//! ```text
//! == what the case shows
//! -- context              a shell script that makes the context, in its folder
//! echo a > a
//! -- ignore               .dockerignore
//! *.md
//! -- args                 arguments of the build, one a line
//! --build-arg
//! X=1
//! -- fails                both must refuse it
//! -- differs REASON       a difference that is allowed, and must be there; see `Difference`
//! -- Dockerfile
//! FROM tiny
//! COPY a /
//! ```

use std::path::Path;

use super::Difference;

/// The image that cases start from: busybox, and two users.
pub const BASE: &str = r#"FROM scratch
COPY mount-points /
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /root /tmp /usr/bin /var/lib /home/user /dir/sub && chmod 1777 /tmp && chmod 700 /root \
 && echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd && echo 'user:x:1000:1001::/home/user:/bin/sh' >> /etc/passwd \
 && echo 'root:x:0:' > /etc/group && echo 'staff:x:50:user' >> /etc/group && echo 'user:x:1001:' >> /etc/group \
 && chown 1000:1001 /home/user && echo file > /dir/file && echo deep > /dir/sub/deep && ln -s dir /link \
 && ln -s /etc /dir/absolute && ln -s missing /dangling && echo script > /usr/bin/tool && chmod 4755 /usr/bin/tool \
 && echo one > /hard1 && ln /hard1 /hard2 && mkfifo /fifo
ENV FROM_BASE=yes
WORKDIR /work
"#;

/// A Dockerfile with its context.
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The file it stands in.
    pub file: String,
    /// A name for folders and tags.
    pub id: String,
    pub context: String,
    pub ignore: Option<String>,
    pub args: Vec<String>,
    pub fails: bool,
    pub allowed: Vec<Difference>,
    pub dockerfile: String,
}

impl Case {
    /// Whether only one of the two may build it.
    pub fn allows_refusal(&self, by_ibid: bool) -> bool {
        self.allowed.iter().any(|allowed| allowed.explains_refusal(by_ibid))
    }
}

/// All cases.
pub fn read() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/corpus");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a text file");
        let (_, rest) = text.split_once("\n== ").expect("a case");
        for part in rest.split("\n== ") {
            let (name, body) = part.split_once('\n').expect("a name, then sections");
            let id = format!("{}-{}", file.trim_end_matches(".txt"), cases.len());
            cases.push(case(name, &file, id, body));
        }
    }
    cases
}

fn case(name: &str, file: &str, id: String, body: &str) -> Case {
    let mut case = Case {
        name: name.to_owned(),
        file: file.to_owned(),
        id,
        context: String::new(),
        ignore: None,
        args: Vec::new(),
        fails: false,
        allowed: Vec::new(),
        dockerfile: String::new(),
    };
    for section in format!("\n{body}").split("\n-- ").skip(1) {
        let (title, text) = section.split_once('\n').unwrap_or((section, ""));
        match title {
            "context" => case.context = text.to_owned(),
            "ignore" => case.ignore = Some(text.to_owned()),
            "args" => case.args = text.lines().map(str::to_owned).collect(),
            "fails" => case.fails = true,
            "Dockerfile" => case.dockerfile = format!("{text}\n"),
            _ => match title.strip_prefix("differs ") {
                Some(difference) => case.allowed.push(Difference::parse(difference)),
                None => panic!("{file}: {name}: unknown section `{title}`"),
            },
        }
    }
    assert!(!case.dockerfile.is_empty(), "{file}: {name}: no Dockerfile");
    case
}
